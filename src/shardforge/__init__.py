"""ShardForge: a distributed, PostgreSQL-compatible SQL database in Python."""

__version__ = "0.1.0"
