"""Expressions in definitions: bound against their table, checked for what such a place allows, and turned into text.

The text that is stored is canonical (see catalog.ruleutils), not what the user typed.
Source: PostgreSQL 15, src/backend/catalog/heap.c (cookDefault, cookConstraint), src/backend/parser/parse_expr.c.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.bind import BindEnvironment, bind_default, bind_table_expression, tree
from shardforge.sql.bind.casts import ASSIGNMENT, coerce_to_target
from shardforge.sql.bind.dispatch import bind_in
from shardforge.sql.bind.scope import Scope, Shared
from shardforge.sql.bind.tables import open_row
from shardforge.sql.catalog.descriptors import Column, Table
from shardforge.sql.catalog.expressions import columns_of, parts
from shardforge.sql.catalog.ruleutils import cast_argument, expression_text, is_cast
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.parse import deparse_expression, parse_expression
from shardforge.sql.types.registry import type_by_oid

BOOL, TEXT = 16, 25


def environment(ddl: Ddl, text: str) -> BindEnvironment:
    """A binder's environment for the statement's session."""
    return BindEnvironment(
        catalog=ddl.catalog,
        search_path=ddl.search_path,
        settings=ddl.ctx.settings,
        parameter_types=[],
        text=text,
    )


def column_names(table: Table) -> dict[int, str]:
    """Column id to name, for printing."""
    return {column.id: column.name for column in table.columns}


def bind(ddl: Ddl, table: Table, text: str) -> tree.Expression:
    """A stored (or typed) expression over the table's columns."""
    return bind_table_expression(text, table, environment(ddl, text))


def _bind_node(ddl: Ddl, table: Table, node: Node, place: str) -> tree.Expression:
    expression = bind(ddl, table, deparse_expression(node))
    for part in parts(expression):
        if isinstance(part, tree.Subquery):
            raise QueryError(f"cannot use subquery in {place}", "0A000")
        if isinstance(part, tree.AggregateCall):
            raise QueryError(f"aggregate functions are not allowed in {place}s", "42803")
        if isinstance(part, tree.WindowCall):
            raise QueryError(f"window functions are not allowed in {place}s", "42P20")
        if isinstance(part, tree.Call) and part.retset:
            raise QueryError(f"set-returning functions are not allowed in {place}s", "0A000")
    return expression


def check(ddl: Ddl, table: Table, node: Node) -> tuple[str, set[int]]:
    """(text, column ids used) of a CHECK. Raises: 42804 when it is not boolean."""
    expression = _bind_node(ddl, table, node, "check constraint")
    _require_boolean(expression, "CHECK")
    return expression_text(expression, column_names(table)), columns_of(expression)


def predicate(ddl: Ddl, table: Table, node: Node) -> str:
    """The text of a partial index's WHERE."""
    expression = _bind_node(ddl, table, node, "index predicate")
    _require_boolean(expression, "WHERE")
    _require_immutable(expression, "functions in index predicate must be marked IMMUTABLE")
    return expression_text(expression, column_names(table))


def index_key(ddl: Ddl, table: Table, node: Node) -> tuple[str, int]:
    """(text, type) of an index expression."""
    expression = _bind_node(ddl, table, node, "index expression")
    _require_immutable(expression, "functions in index expression must be marked IMMUTABLE")
    return expression_text(expression, column_names(table)), expression.type


def generated(ddl: Ddl, table: Table, column: Column, node: Node) -> str:
    """The text of a generation expression, assignable to its column."""
    expression = _bind_node(ddl, table, node, "column generation expression")
    for used in columns_of(expression):
        other = next(c for c in table.columns if c.id == used)
        if other.id == column.id or other.generated is not None:
            raise QueryError(
                f'cannot use generated column "{other.name}" in column generation expression', "42P17",
                detail="A generated column cannot reference another generated column.",
            )  # fmt: skip
    _require_immutable(expression, "generation expression is not immutable")
    if assigned(ddl, table, column, deparse_expression(node)) is None:
        wanted, given = type_by_oid(column.type_oid).display, type_by_oid(expression.type).display
        raise QueryError(
            f'column "{column.name}" is of type {wanted} but default expression is of type {given}', "42804",
            hint="You will need to rewrite or cast the expression.",
        )  # fmt: skip
    return expression_text(_without_implicit(expression, node), column_names(table))


def default(ddl: Ddl, table: Table, column: Column, node: Node) -> str | None:
    """The text of a DEFAULT, or None for DEFAULT NULL. Raises: 0A000 for column references, 42804."""
    constant = node.get("A_Const")
    if constant is not None and constant.get("isnull"):
        return None
    text = deparse_expression(node)
    bare = replace(column, not_null=False, typmod=-1)  # the length is applied when a row is stored
    coerced = bind_default(text, bare, environment(ddl, text))
    if columns_of(coerced):
        raise QueryError("cannot use column reference in DEFAULT expression", "0A000")
    if constant is not None and "sval" in constant:
        return expression_text(coerced, {})
    if "SQLValueFunction" in node:
        return _value_function(node["SQLValueFunction"])
    expression = _bind_node(ddl, table, node, "DEFAULT expression")
    return expression_text(_without_implicit(expression, node), {})


def _value_function(node: Node) -> str:
    """CURRENT_DATE and its kin, as written."""
    word = str(node["op"]).removeprefix("SVFOP_").removesuffix("_N")
    return f"{word}({node['typmod']})" if int(node.get("typmod", -1)) >= 0 else word


def _without_implicit(expression: tree.Expression, node: Node) -> tree.Expression:
    """Without a cast at the top that the user did not write: storing puts it back."""
    if "TypeCast" not in node and "FuncCall" not in node and not isinstance(expression, tree.Const):
        while is_cast(expression):
            expression = cast_argument(expression)
    return expression


def _require_boolean(expression: tree.Expression, place: str) -> None:
    if expression.type != BOOL:
        shown = type_by_oid(expression.type).display
        raise QueryError(f"argument of {place} must be type boolean, not type {shown}", "42804")


def assigned(ddl: Ddl, table: Table, column: Column, text: str) -> tree.Expression | None:
    """An expression over the table's columns, cast to the column's type as an assignment; None when that is no cast."""
    shared = Shared(environment(ddl, text))
    scope = Scope(shared)
    ids = {c.id: tree.ColumnId(c.id) for c in table.columns}
    scope.namespace.append(open_row(scope, table, table.name, ids))
    bound = bind_in(scope, parse_expression(text), "check")
    return coerce_to_target(scope, bound, column.type_oid, column.typmod, ASSIGNMENT)


def _require_immutable(expression: tree.Expression, message: str) -> None:
    for part in parts(expression):
        if isinstance(part, tree.Call) and part.volatile != "i" and not _inlined(part):
            raise QueryError(message, "42P17")
        if isinstance(part, tree.IoCast) and not _text_is_immutable(part.arg.type, part.type):
            raise QueryError(message, "42P17")


_ANY_TEXT_CONCATENATION: Final = {2003: 1, 2004: 0}
"""textanycat and anytextcat: PostgreSQL inlines them, so only the output function of the other side matters."""


def _inlined(call: tree.Call) -> bool:
    position = _ANY_TEXT_CONCATENATION.get(call.proc)
    return position is not None and _text_is_immutable(call.args[position].type, TEXT)


def _text_is_immutable(source: int, target: int) -> bool:
    """Whether a value's way through text depends on nothing but itself."""
    rows = {row.oid: row for row in pgdata.types()}
    names = (
        rows[source].typoutput if source in rows else "",
        rows[target].typinput if target in rows else "",
    )
    return all(
        (found := pgdata.procs_named(name)) and found[0].provolatile == "i" for name in names
    )


def renamed(ddl: Ddl, old: Table, new: Table, text: str) -> str:
    """Stored text over `old`'s column names as text over `new`'s."""
    return expression_text(bind(ddl, old, text), column_names(new))
