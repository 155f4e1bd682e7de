"""What the rules of an experiment mean: compile them, learn from a pool, judge its samples."""
