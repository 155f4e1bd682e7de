"""From candidates to images."""
