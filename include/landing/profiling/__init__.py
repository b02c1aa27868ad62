"""What a sample of records shows whose values name schemas of a registry."""
