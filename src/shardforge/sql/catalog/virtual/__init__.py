"""pg_catalog and information_schema: one module per group of related catalog tables."""
