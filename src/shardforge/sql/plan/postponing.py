"""Volatile outputs of a select list are computed behind its ORDER BY, row by row in that order, as PostgreSQL does.

So locks and numbers of a sequence are taken in the order that was asked for, and by no row that a LIMIT leaves out.
Source: PostgreSQL 15, make_sort_input_target (src/backend/optimizer/plan/planner.c).
"""

from __future__ import annotations

from dataclasses import replace

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import Expression
from shardforge.sql.execute.expressions import LazyColumn
from shardforge.sql.plan.logical import columns_of


def postponed(sort: tree.Sort) -> tuple[tree.Sort, tuple[Expression, ...]] | None:
    """The ORDER BY without what can wait, and the select list over it; None when there is no such thing in it."""
    project = sort.input
    if not isinstance(project, tree.Project):
        return None
    keys = walk.references(sort.keys)
    late = {
        column: value
        for column, value in project.outputs
        if column not in keys and walk.is_volatile(value) and not walk.has(value, LazyColumn)
    }
    if not late:
        return None
    early = {column: value for column, value in project.outputs if column not in late}
    inputs = set(columns_of(project.input))
    for node in walk.nodes(tuple(late.values())):
        if isinstance(node, tree.ColumnRef) and node.column in inputs:
            early.setdefault(node.column, node)
    below = replace(sort, input=replace(project, outputs=tuple(early.items())))
    outputs = tuple(
        late.get(column) or tree.ColumnRef(column, value.type) for column, value in project.outputs
    )
    return below, outputs
