"""SQL text to parse trees, by PostgreSQL's own parser (libpg_query).

`parse` splits a script into statements, each with libpg_query's JSON tree as plain dictionaries. Nothing is
resolved here: names, types and functions are the binder's work. Locations in a tree are byte offsets into the
statement's own text.
"""

from __future__ import annotations

from shardforge.sql.parse.constants import Literal, Value, kinds, lift, literals
from shardforge.sql.parse.deparse import deparse_expression, deparse_statement
from shardforge.sql.parse.statements import (
    Node,
    Statement,
    char_position,
    parse,
    parse_expression,
    parse_type_name,
)

__all__ = [
    "Literal",
    "Node",
    "Statement",
    "Value",
    "char_position",
    "deparse_expression",
    "deparse_statement",
    "kinds",
    "lift",
    "literals",
    "parse",
    "parse_expression",
    "parse_type_name",
]
