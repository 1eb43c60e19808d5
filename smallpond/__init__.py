"""Data processing on DuckDB, from one laptop to a Ray cluster, on files and object stores."""
