"""Parts of an inner plan that do not depend on the outer row are kept, so that running it again costs no reading.

SubPlan over Filter(x.b < t.b) over Seq Scan x   ->   Filter(x.b < t.b) over Materialize over Seq Scan x
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from shardforge.sql.bind import walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.plan import nodes
from shardforge.sql.plan.nodes import Node

_CHEAP = (nodes.ValuesScan, nodes.CteScan, nodes.GivenRows, nodes.Materialize)
_IN_MEMORY = (nodes.CteScan, nodes.GivenRows)


def keep_independent_parts(node: Node, outer: frozenset[ColumnId]) -> Node:
    """`node` with its largest parts that use none of `outer` materialized."""
    if not walk.references(node) & outer:
        if isinstance(node, _CHEAP) or _changes_each_time(node):
            return node
        return nodes.Materialize(columns=node.columns, rows=node.rows, order=node.order, input=node)
    if isinstance(node, nodes.TableScan):
        return _scan(node, outer)
    updates: dict[str, Any] = {}
    for name in ("input", "left", "right"):
        inner = getattr(node, name, None)
        if isinstance(inner, Node):
            updates[name] = keep_independent_parts(inner, outer)
    if isinstance(node, nodes.Append):
        updates["inputs"] = tuple(keep_independent_parts(inner, outer) for inner in node.inputs)
    known = {field.name for field in fields(node)}
    return replace(node, **{k: v for k, v in updates.items() if k in known})


def _scan(scan: nodes.TableScan, outer: frozenset[ColumnId]) -> Node:
    """A scan whose condition alone depends on the outer row: the rest of it is kept."""
    if walk.references(scan.access) & outer:
        return scan
    own: list[Expression] = []
    dependent: list[Expression] = []
    for condition in walk.conjuncts(scan.condition):
        (dependent if walk.references(condition) & outer else own).append(condition)
    alone = replace(scan, condition=walk.conjunction(own))
    correlated = walk.conjunction(dependent)
    assert correlated is not None, "a scan that depends on the outer row has such a condition"
    kept = nodes.Materialize(columns=scan.columns, rows=scan.rows, order=scan.order, input=alone)
    return nodes.Filter(
        columns=scan.columns, rows=scan.rows, order=scan.order, input=kept, condition=correlated
    )


def _changes_each_time(node: Node) -> bool:
    """Whether running it again may give other rows: volatile functions, and CTE scans, which recursion changes."""
    return walk.is_volatile(node) or any(isinstance(part, _IN_MEMORY) for part in walk.nodes(node))
