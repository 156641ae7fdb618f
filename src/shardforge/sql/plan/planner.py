"""From a bound statement to a plan: rewriting rules, then access paths and join methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import BoundStatement, OutputColumn
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.plan import nodes
from shardforge.sql.plan.build import Builder
from shardforge.sql.plan.explain import explain_lines
from shardforge.sql.plan.logical import ColumnIds


@dataclass(frozen=True, slots=True)
class Plan:
    """What a statement will do. `columns` are the result's, None when there are none."""

    kind: str
    columns: tuple[OutputColumn, ...] | None
    root: nodes.Node

    def explain(self, annotation: Callable[[nodes.Node], str] | None = None) -> list[str]:
        """The lines of EXPLAIN; `annotation` adds what EXPLAIN ANALYZE found out."""
        return explain_lines(self.root, annotation)


def plan(bound: BoundStatement, catalog: CatalogSnapshot) -> Plan:
    """The plan of a bound statement."""
    builder = Builder(catalog, ColumnIds(bound))
    if isinstance(bound, tree.Query):
        return Plan("select", bound.outputs, builder.query(bound))
    root = builder.statement(bound)
    return Plan(type(bound).__name__.lower(), bound.returning, root)
