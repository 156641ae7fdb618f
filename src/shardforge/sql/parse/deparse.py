"""Parse trees back to SQL text, by libpg_query's deparser: for stored defaults, checks and view queries.

Only DDL comes here, so the protobuf library is loaded when it first does. The text is equivalent to what was
parsed, not equal to it.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.parse.libpg_query import SyntaxFailure, deparse_protobuf
from shardforge.sql.parse.statements import Node


@cache
def _protobuf() -> tuple[Any, Any]:
    return import_module("google.protobuf.json_format"), import_module("postgast.pg_query_pb2")


def deparse_statement(node: Node) -> str:
    """The SQL text of a statement node, such as `{"SelectStmt": ...}`."""
    json_format, messages = _protobuf()
    tree = messages.ParseResult()
    json_format.ParseDict({"stmts": [{"stmt": node}]}, tree, max_recursion_depth=5000)
    result = deparse_protobuf(tree.SerializeToString())
    if isinstance(result, SyntaxFailure):
        raise QueryError(result.message, "XX000")
    return result


def deparse_expression(node: Node) -> str:
    """The SQL text of an expression node."""
    select = {
        "targetList": [{"ResTarget": {"val": node}}],
        "limitOption": "LIMIT_OPTION_DEFAULT",
        "op": "SETOP_NONE",
    }
    return deparse_statement({"SelectStmt": select}).removeprefix("SELECT ")
