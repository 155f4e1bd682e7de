"""Computation that rules stand on and that knows nothing of rules."""
