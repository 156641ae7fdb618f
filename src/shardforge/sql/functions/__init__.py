"""Functions, operators, aggregates and window functions: Python implementations of PostgreSQL's."""
