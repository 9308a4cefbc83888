import duckdb
