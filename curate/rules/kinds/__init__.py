"""What each kind of rule means: one module for each kind, or for two that are nearly the same."""
