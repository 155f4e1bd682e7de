"""The demo world: a seeded synthetic web with a known truth, and the small CLIP trained for it."""
