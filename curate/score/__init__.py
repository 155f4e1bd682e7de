"""Scorers: columns that filters can use."""
