"""Other ways from a topic to a table, each run by `benchmarks.landing` in processes of its own."""
