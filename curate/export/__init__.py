"""Training shards, tables and the dataset card of a selection."""
