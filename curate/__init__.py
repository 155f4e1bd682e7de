"""curate: from Common Crawl metadata to a curated image-text dataset."""

__version__ = "0.1.0"
