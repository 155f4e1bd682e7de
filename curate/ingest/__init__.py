"""From crawl metadata or tables to candidates."""
