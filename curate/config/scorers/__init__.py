"""Settings of the scorers: one module for each kind."""
