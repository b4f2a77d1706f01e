"""All files that a site needs of shifter-xc: programs, units, man pages, completion, an example configuration."""
