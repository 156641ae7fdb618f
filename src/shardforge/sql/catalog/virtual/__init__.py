"""pg_catalog and information_schema: one module per group of related catalog tables.

A new catalog table: its columns in `data/relations.tsv`, its rows in a module here, the module in `_MODULES`.
"""

from __future__ import annotations

from importlib import import_module

from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.catalog.virtual.base import all_tables

_MODULES = (
    "activity", "constraints", "databases", "functions", "indexes", "information_columns", "information_constraints",
    "information_tables", "listings", "relations", "roles", "types",
)  # fmt: skip


def virtual_tables() -> dict[tuple[str, str], VirtualTable]:
    """Every catalog table, by schema and name."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
    return all_tables()
