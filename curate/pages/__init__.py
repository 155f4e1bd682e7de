"""What pages for the browser share: one look, pictures as data URLs, words from the web made harmless."""
