"""The table that a statement changes, and RETURNING."""

from __future__ import annotations

from shardforge.sql.bind.from_clause import lookup_relation
from shardforge.sql.bind.rows import fields_of
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.targets import bind_targets, resolve_unknown_targets
from shardforge.sql.bind.tree import ColumnRef, Expression, OutputColumn
from shardforge.sql.catalog.descriptors import Sequence, Table, View
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.types import oids


def open_target(scope: Scope, node: Node, verb: str) -> tuple[Table, str]:
    """(table, name it goes by) of the relation that a statement changes."""
    name = node["relname"]
    location = node.get("location", 0)
    if "schemaname" not in node and scope.find_cte(name) is not None:
        raise scope.shared.error(
            f'relation "{name}" cannot be the target of a modifying statement', "42P01", location
        )
    found = lookup_relation(scope, node)
    alias = node["alias"]["aliasname"] if "alias" in node else name
    if isinstance(found, Table):
        return found, alias
    if isinstance(found, View):
        raise scope.shared.unsupported(f"{verb} on a view", location)
    if isinstance(found, Sequence):
        raise scope.shared.error(f'cannot change sequence "{name}"', "42809", location)
    if isinstance(found, VirtualTable):
        raise scope.shared.error(
            f'permission denied: "{name}" is a system catalog', "42501", location
        )
    raise scope.shared.error(f'cannot open relation "{name}"', "42809", location)


def bind_returning(
    scope: Scope, node: Node
) -> tuple[tuple[OutputColumn, ...], tuple[Expression, ...]]:
    """(output columns, their expressions) of a RETURNING list."""
    if "options" in node:
        raise scope.shared.unsupported("WITH in RETURNING")
    targets = bind_targets(scope, node["exprs"], "returning")
    resolve_unknown_targets(scope, targets)
    outputs: list[OutputColumn] = []
    for target in targets:
        expression = target.expression
        origin = (0, 0)
        if isinstance(expression, ColumnRef) and expression.column in scope.own:
            owned = scope.own[expression.column]
            origin = (owned.table, owned.attnum)
        column = scope.shared.new_column()
        if expression.type == oids.RECORD:
            shape = fields_of(scope.shared, expression)
            if shape is not None:
                scope.shared.shapes[column] = shape
        outputs.append(
            OutputColumn(column, target.name, expression.type, expression.typmod, *origin)
        )
    return tuple(outputs), tuple(target.expression for target in targets)
