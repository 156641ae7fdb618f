"""Syntax to meaning: names, types, casts and operators resolved by PostgreSQL's rules.

    parse tree --bind_statement--> bound tree (`tree`), over a catalog snapshot

The binder reads the catalog and the functions' registry, and executes nothing but the input functions of literals.
Unsupported constructs are refused here (0A000), so that what is bound can be run.
"""

from __future__ import annotations

from shardforge.sql.bind import (
    aggregates,
    arrays,
    calls,
    columns,
    conditionals,
    literals,
    operators,
    subqueries,
)
from shardforge.sql.bind.environment import BindEnvironment
from shardforge.sql.bind.statements import bind_scalar, bind_statement
from shardforge.sql.bind.tables import bind_default, bind_table_expression
from shardforge.sql.bind.typenames import resolve_type_name

_REGISTERED = (aggregates, arrays, calls, columns, conditionals, literals, operators, subqueries)
"""Modules that register what they bind when they are imported."""

__all__ = [
    "BindEnvironment",
    "bind_default",
    "bind_scalar",
    "bind_statement",
    "bind_table_expression",
    "resolve_type_name",
]
