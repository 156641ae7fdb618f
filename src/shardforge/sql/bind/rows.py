"""The fields of row values: of tables' row types, row constructors, and functions with several results."""

from __future__ import annotations

from shardforge.sql import pgdata
from shardforge.sql.bind.scope import Fields, Shared
from shardforge.sql.bind.tree import (
    Call,
    Case,
    Coalesce,
    ColumnRef,
    Expression,
    Relabel,
    RowExpr,
    Subquery,
)
from shardforge.sql.types import oids


def output_fields(row: pgdata.ProcRow) -> Fields:
    """The result columns of a function with OUT or TABLE arguments; none when it has at most one."""
    if not row.proargmodes:
        return ()
    names = row.proargnames or ("",) * len(row.proallargtypes)
    found = [
        (name, type_oid)
        for name, type_oid, mode in zip(names, row.proallargtypes, row.proargmodes, strict=False)
        if mode in ("o", "b", "t")
    ]
    if len(found) < 2 and row.prorettype != oids.RECORD:
        return ()
    return tuple(
        (name or f"column{i}", type_oid, -1) for i, (name, type_oid) in enumerate(found, 1)
    )


def relation_fields(shared: Shared, type_oid: int) -> Fields | None:
    """The columns of a table's row type."""
    relation = shared.catalog.row_type(type_oid)
    if relation is None:
        return None
    return tuple(
        (c.name, c.type_oid, c.typmod) for c in relation.columns if not c.dropped and not c.hidden
    )


def fields_of(shared: Shared, expression: Expression) -> Fields | None:
    """The fields of a row-valued expression, or None when it is not one (or they are not known)."""
    if isinstance(expression, RowExpr):
        return tuple(
            (name, arg.type, arg.typmod)
            for name, arg in zip(expression.names, expression.args, strict=True)
        )
    if expression.type != oids.RECORD:
        return relation_fields(shared, expression.type)
    if isinstance(expression, ColumnRef):
        return shared.shapes.get(expression.column)
    if isinstance(expression, Call):
        row = pgdata.proc_by_oid(expression.proc)
        return (row and output_fields(row)) or None
    if isinstance(expression, Relabel):
        return fields_of(shared, expression.arg)
    if isinstance(expression, Coalesce):
        return fields_of(shared, expression.args[0])
    if isinstance(expression, Case):
        return fields_of(shared, expression.whens[0][1])
    if isinstance(expression, Subquery) and expression.kind == "scalar":
        return shared.shapes.get(expression.query.outputs[0].column)
    return None
