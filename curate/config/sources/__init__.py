"""Settings of the sources of candidates: one module for each kind."""
