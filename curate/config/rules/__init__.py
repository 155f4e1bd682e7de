"""Settings of the rules of an experiment: one module for each kind."""
