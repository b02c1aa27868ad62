"""The definitions that `./millrace new` writes."""
