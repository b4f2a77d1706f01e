"""File systems in disk images."""
