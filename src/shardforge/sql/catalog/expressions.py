"""Stored expressions as bound trees, and which columns they use.

Stored text is canonical (see `ruleutils`): it names nothing that a search path could change, so it is bound without a
session. Bound again each time it is asked for; callers that ask often keep what they get.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from shardforge.sql.bind import BindEnvironment, bind_table_expression, tree
from shardforge.sql.catalog.descriptors import Table


class StoredTextSettings:
    """The settings that stored text is read and written under: PostgreSQL's defaults, in UTC."""

    timezone = "UTC"
    datestyle = "ISO, MDY"
    intervalstyle = "postgres"
    extra_float_digits = 1
    bytea_output = "hex"


def bind_stored(table: Table, text: str) -> tree.Expression:
    """A stored expression over the table's columns. It names relations by oid only, so no catalog is needed."""
    catalog: Any = None
    environment = BindEnvironment(catalog=catalog, search_path=(), settings=StoredTextSettings())
    return bind_table_expression(text, table, environment)


def parts(expression: Any) -> Iterator[Any]:
    """The expression (or relation) and everything inside it."""
    yield expression
    if dataclasses.is_dataclass(expression):
        for item in dataclasses.fields(expression):
            yield from _inside(getattr(expression, item.name))


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _inside(item)
    elif dataclasses.is_dataclass(value):
        yield from parts(value)


def columns_of(expression: tree.Expression) -> set[int]:
    """The ids of the columns that an expression uses."""
    return {int(part.column) for part in parts(expression) if isinstance(part, tree.ColumnRef)}
