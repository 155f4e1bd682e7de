"""What several stages ask of a text: its language."""
