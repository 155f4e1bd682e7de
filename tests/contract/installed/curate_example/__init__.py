"""A package of somebody else's that adds to curate, as it would lie in site-packages."""
