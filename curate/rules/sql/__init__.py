"""SQL of rules: DuckDB parses and computes, nothing here reads SQL but its plainest form."""
