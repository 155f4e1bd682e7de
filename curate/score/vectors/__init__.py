"""Scorers of stored embeddings: arithmetic on vectors, no model but for a list of concepts."""
