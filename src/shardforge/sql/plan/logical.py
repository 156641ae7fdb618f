"""What the planner adds to the bound tree, and questions about relations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression

Relation = Any
"""A `tree.Relation` or an `Apply`."""


@dataclass(frozen=True, slots=True)
class Apply:
    """The input's rows with one column more: the value of a subquery for each of them.

    `lazy`: the value may not be needed, so that an error in the subquery is kept until it is.
    """

    input: Relation
    column: ColumnId
    subquery: tree.Subquery
    lazy: bool


class ColumnIds:
    """New column ids, above all that a statement uses."""

    def __init__(self, statement: Any) -> None:
        self._last = max(_all_ids(statement), default=0)

    def take(self) -> ColumnId:
        """An id that nothing has."""
        self._last += 1
        return ColumnId(self._last)


def _all_ids(statement: Any) -> set[ColumnId]:
    found = walk.references(statement)
    found |= defined(statement)
    for node in walk.nodes(statement):
        for name in ("row", "old", "existing", "excluded"):
            mapping = getattr(node, name, None)
            if isinstance(mapping, dict):
                found.update(mapping.values())
    return found


def columns_of(relation: Relation) -> tuple[ColumnId, ...]:
    """The columns that a relation yields, in the order of its rows."""
    if isinstance(relation, Apply):
        return (*columns_of(relation.input), relation.column)
    if isinstance(relation, Given):
        return relation.columns
    if isinstance(relation, tree.Join):
        left = columns_of(relation.left)
        return left if relation.kind in ("semi", "anti") else left + columns_of(relation.right)
    if isinstance(relation, tree.Window):
        return columns_of(relation.input) + tuple(column for column, _ in relation.calls)
    if isinstance(relation, tree.With):
        return columns_of(relation.body)
    if isinstance(relation, tree.Filter | tree.Distinct | tree.Sort | tree.Limit | tree.LockRows):
        return columns_of(relation.input)
    return walk.columns_of(relation)


_SOURCES = (
    tree.Scan, tree.VirtualScan, tree.CteScan, tree.Values, tree.SetOperation, tree.FunctionScan, tree.Project,
    tree.ProjectSet, tree.Aggregate,
)  # fmt: skip


def defined(value: Any) -> set[ColumnId]:
    """Every column that some node under `value` makes."""
    found: set[ColumnId] = set()
    for node in walk.nodes(value):
        if isinstance(node, _SOURCES):
            found.update(walk.columns_of(node))
        elif isinstance(node, tree.Window):
            found.update(column for column, _ in node.calls)
        elif isinstance(node, Apply):
            found.add(node.column)
        elif isinstance(node, Given):
            found.update(node.columns)
    return found


def free_columns(relation: Relation) -> frozenset[ColumnId]:
    """Columns of enclosing queries that a relation uses."""
    return frozenset(walk.references(relation) - defined(relation))


def substitute(expression: Expression, values: dict[ColumnId, Expression]) -> Expression:
    """`expression` with columns replaced."""

    def change(node: Any) -> Any:
        return values.get(node.column) if isinstance(node, tree.ColumnRef) else None

    return walk.rewrite(expression, change)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Given:
    """Rows that the statement has already made: what RETURNING is over."""

    columns: tuple[ColumnId, ...]
