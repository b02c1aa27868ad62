"""Definitions to begin with: what `./millrace new` writes."""
