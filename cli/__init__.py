"""The commands of `./millrace`, one file for each group. cli/main.py lists them."""
