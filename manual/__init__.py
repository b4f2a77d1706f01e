"""Man pages and completion of shells, made from the tables of commands and settings that the programs use."""
