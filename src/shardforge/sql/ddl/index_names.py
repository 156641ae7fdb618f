"""Names for indexes that were given none: table_columns_idx.

Source: PostgreSQL 15, src/backend/commands/indexcmds.c (ChooseIndexName, ChooseIndexColumnNames).
"""

from __future__ import annotations

from collections.abc import Iterable

from shardforge.sql.catalog.descriptors import IndexColumn, Table
from shardforge.sql.ddl.names import NAME_MAX, object_name


def column_labels(table: Table, parts: Iterable[IndexColumn]) -> list[str]:
    """The name of each index column: its column's, its function's, or `expr`, made different by numbers."""
    by_id = {c.id: c.name for c in table.columns}
    labels: list[str] = []
    for part in parts:
        if part.column_id:
            base = by_id[part.column_id]
        else:
            base = _function_name(part.expression or "")
        name, number = base, 0
        while name in labels:
            number += 1
            name = f"{base[: NAME_MAX - len(str(number))]}{number}"
        labels.append(name)
    return labels


def _function_name(expression: str) -> str:
    """The function that an expression's text calls first, else `expr`."""
    name, bracket, _ = expression.partition("(")
    return name if bracket and name and name.isidentifier() else "expr"


def index_name(table: Table, parts: Iterable[IndexColumn], label: str = "idx") -> str:
    """The name of an index that was given none."""
    return object_name(table.name, "_".join(column_labels(table, parts)), label)
