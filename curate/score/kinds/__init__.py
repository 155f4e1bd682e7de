"""The kinds of scorers: a module for each, of the same name as that of its settings."""
