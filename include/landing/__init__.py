"""Landing: every record of a stream's topic into its PostgreSQL table, exactly once."""
