"""Prepared statements: text to something that can be run, through the node's plan cache.

Statements over a session's own uncommitted DDL are not shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.bind import BindEnvironment, bind_statement
from shardforge.sql.bind.tree import BoundStatement, OutputColumn
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.execute import compile_plan
from shardforge.sql.parse import Statement
from shardforge.sql.plan import plan
from shardforge.sql.session.prepared import Prepared
from shardforge.sql.session.settings import Settings
from shardforge.sql.session.table_use import tables_used

PLANNABLE = {
    "SelectStmt": "select",
    "InsertStmt": "insert",
    "UpdateStmt": "update",
    "DeleteStmt": "delete",
}
_CARRIERS = {"DeclareCursorStmt", "ExplainStmt", "CreateTableAsStmt"}
UNKNOWN_TYPES = (0, 705)
TEXT = 25


def kind_of(node: dict[str, Any]) -> str:
    """The statement's kind: 'select', 'insert', ... or the parser's node name in lower case."""
    name = next(iter(node))
    return PLANNABLE.get(name, name.lower())


def prepare_statement(
    statement: Statement,
    declared_types: Sequence[int],
    catalog: CatalogSnapshot,
    settings: Settings,
    search_path: tuple[str, ...],
    result_columns: tuple[OutputColumn, ...] | None = None,
) -> Prepared:
    """Bind and plan `statement`; one that is not a query is kept as it is, for the session to carry out.

    `result_columns` describes the rows of a utility statement that has some (SHOW, EXPLAIN, FETCH, EXECUTE).
    Raises QueryError 42P18 for a parameter whose type nothing tells.
    """
    kind = kind_of(statement.node)
    declared = tuple(declared_types)
    if not is_planned(statement.node):
        types = declared
        query = carried_query(statement.node)
        if query is not None and "$" in statement.text:
            inner = replace(statement, node=query)
            types = prepare_statement(
                inner, declared, catalog, settings, search_path
            ).parameter_types
        return Prepared(
            statement,
            kind,
            types,
            result_columns,
            None,
            catalog.version,
            settings.binding,
            declared,
        )
    environment = BindEnvironment(
        catalog=catalog,
        search_path=search_path,
        settings=settings,
        parameter_types=[None if t in UNKNOWN_TYPES else t for t in declared],
        text=statement.text,
    )
    return planned(statement, bind_statement(statement.node, environment), environment, declared)


def planned(
    statement: Statement,
    bound: BoundStatement,
    environment: BindEnvironment,
    declared_types: tuple[int, ...] = (),
) -> Prepared:
    """A bound statement, ready to run."""
    catalog = environment.catalog
    plan_ = plan(bound, catalog)
    types = tuple(TEXT if t in (None, *UNKNOWN_TYPES) else t for t in environment.parameter_types)
    return Prepared(
        statement,
        kind_of(statement.node),
        types,
        plan_.columns,
        compile_plan(plan_),
        catalog.version,
        environment.settings.binding,
        declared_types,
        locks=tables_used(bound, catalog),
    )


def effective_search_path(settings: Settings, user: str) -> tuple[str, ...]:
    """search_path with "$user" replaced."""
    return tuple(user if name == "$user" else name for name in settings.search_path)


def is_planned(node: dict[str, Any]) -> bool:
    """Whether a statement is bound and planned; the session carries out all others itself."""
    name, inner = next(iter(node.items()))
    return name in PLANNABLE and not (name == "SelectStmt" and "intoClause" in inner)


def carried_query(node: dict[str, Any]) -> dict[str, Any] | None:
    """The query of DECLARE, EXPLAIN, CREATE TABLE AS and SELECT INTO, whose parameters are theirs."""
    name, inner = next(iter(node.items()))
    if name == "SelectStmt" and "intoClause" in inner:
        return {name: {key: value for key, value in inner.items() if key != "intoClause"}}
    query: dict[str, Any] | None = inner.get("query") if name in _CARRIERS else None
    return query


def check_parameter_count(prepared: Prepared, given: int) -> None:
    """08P01 unless `given` parameters are what the statement takes."""
    required = len(prepared.parameter_types)
    if given != required:
        raise QueryError(
            f"bind message supplies {given} parameters, but prepared statement requires {required}",
            "08P01",
        )
