"""kNN indices over a selection, and search."""
