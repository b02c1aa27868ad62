"""The decoders of the formats that name their schema, which a schema registry has."""
