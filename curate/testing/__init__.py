"""Contract suites: what every store, rule, scorer, source and stage has to hold, for any implementation.

A suite is a class of pytest tests. Subclass it in a test module, override its fixtures, and pytest runs it
against your implementation.
"""
