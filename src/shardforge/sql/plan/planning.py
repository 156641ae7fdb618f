"""The planner's door: one bound statement in, one plan out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import BoundStatement, OutputColumn
from shardforge.sql.plan.explain import explain_lines
from shardforge.sql.plan.rules import Planner


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned statement. `root` is a physical node, or an Insert, Update or Delete over one."""

    kind: str
    """'select', 'insert', 'update' or 'delete'."""
    root: Any
    columns: tuple[OutputColumn, ...] | None
    """The result columns; None for a change without RETURNING."""

    def explain(self) -> list[str]:
        """EXPLAIN's lines."""
        return explain_lines(self.root)


def plan(bound: BoundStatement) -> Plan:
    """The plan of a statement. Raises QueryError 0A000 for what no rule can plan."""
    planner = Planner()
    if isinstance(bound, tree.Query):
        physical = planner.relation(bound.root, [])
        return Plan("select", planner.select_outputs(physical, bound), bound.outputs)
    kind = type(bound).__name__.lower()
    return Plan(kind, planner.change(bound), bound.returning)


