"""The commands of `./millrace`, one file for each group; include/platform/cli.py lists them."""
