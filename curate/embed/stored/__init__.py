"""Embeddings that somebody else has computed, as a source of this project's own embedding folders."""
