"""Schemas of records in Kafka: how a record names its schema, and the schema registry that has it."""
