"""What a user types, and what a line of it means. A file per group of commands; main.py is the program."""
