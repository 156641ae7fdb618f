"""pg_catalog and information_schema: one module per group of related catalog tables."""

from __future__ import annotations

from shardforge.sql.catalog.relations import VirtualTable


def virtual_tables() -> dict[tuple[str, str], VirtualTable]:
    """Every catalog table, by schema and name."""
    return {}
