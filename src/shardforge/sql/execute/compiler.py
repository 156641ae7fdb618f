"""From a plan to operators."""

from __future__ import annotations

from collections.abc import Callable

from shardforge.sql.execute import (
    aggregation,
    apply,
    ctes,
    functions,
    joins,
    locking,
    operators,
    scans,
    sorting,
    windows,
)
from shardforge.sql.execute.change import compile_change
from shardforge.sql.execute.operators import Operator
from shardforge.sql.plan import nodes
from shardforge.sql.plan.nodes import Node

Wrap = Callable[[Node, Operator], Operator]


class Compiler:
    """Makes operators; `wrap` may put something around each (EXPLAIN ANALYZE counts there)."""

    def __init__(self, wrap: Wrap | None = None) -> None:
        self._wrap = wrap
        self._given: Operator | None = None

    def compile_over(self, node: Node, given: Operator) -> Operator:
        """The operators of a plan over rows that `given` yields."""
        before, self._given = self._given, given
        made = self.compile(node)
        self._given = before
        return made

    def compile(self, node: Node) -> Operator:
        """The operator of a node and everything below it."""
        made = self._sources(node) or self._operators(node)
        return made if self._wrap is None else self._wrap(node, made)

    def _sources(self, node: Node) -> Operator | None:
        match node:
            case nodes.TableScan():
                return scans.TableScanOperator(node)
            case nodes.VirtualTableScan():
                return scans.VirtualScan(node)
            case nodes.ValuesScan(columns=columns, lists=lists):
                return operators.ValuesScan(columns, lists)
            case nodes.GivenRows():
                return self._given
            case nodes.FunctionScan():
                return functions.FunctionScan(
                    node.columns, node.functions, node.widths, node.ordinality
                )
            case nodes.CteScan(columns=columns, name=name, positions=positions):
                return ctes.CteScan(columns, name, positions)
            case nodes.Insert() | nodes.Update() | nodes.Delete():
                return compile_change(node, self)
        return None

    def _operators(self, node: Node) -> Operator:
        match node:
            case nodes.Filter(input=inner, condition=condition):
                return operators.Filter(self.compile(inner), condition)
            case nodes.Project(input=inner, columns=columns, outputs=outputs):
                return operators.Project(self.compile(inner), columns, outputs)
            case nodes.Materialize(input=inner):
                return operators.Materialize(self.compile(inner))
            case nodes.ProjectSet(input=inner, columns=columns, outputs=outputs):
                return functions.ProjectSet(self.compile(inner), columns, outputs)
            case nodes.Apply():
                return apply.Apply(
                    node.columns, self.compile(node.input), self.compile(node.plan), node.kind, node.test,
                    node.outer, node.lazy, node.element_type,
                )  # fmt: skip
            case nodes.LockRows():
                return locking.LockRows(
                    self.compile(node.input), node.keys, node.tables, node.strength, node.policy
                )
            case nodes.Limit(input=inner, limit=limit, offset=offset, ties=ties):
                return sorting.Limit(self.compile(inner), limit, offset, ties)
            case nodes.Sort(input=inner, keys=keys, top=top):
                return sorting.Sort(self.compile(inner), keys, top)
            case nodes.Distinct(input=inner, on=on, types=types):
                return sorting.Distinct(self.compile(inner), on, types)
            case nodes.SetOperation():
                return sorting.SetOperation(
                    node.columns, node.op, node.all, self.compile(node.left), self.compile(node.right), node.types
                )  # fmt: skip
            case nodes.Append(columns=columns, inputs=inputs):
                return operators.Append(columns, [self.compile(inner) for inner in inputs])
        return self._joins_and_groups(node)

    def _joins_and_groups(self, node: Node) -> Operator:
        match node:
            case nodes.HashJoin():
                return joins.HashJoin(
                    node.kind, node.columns, self.compile(node.left), self.compile(node.right),
                    node.left_keys, node.right_keys, node.condition,
                )  # fmt: skip
            case nodes.NestedLoop():
                return joins.NestedLoop(
                    node.kind, node.columns, self.compile(node.left), self.compile(node.right),
                    node.condition, node.lateral,
                )  # fmt: skip
            case nodes.IndexJoin(kind=kind, columns=columns, scan=scan, condition=condition):
                left = self.compile(node.left)
                right = scans.TableScanOperator(scan, left.layout)
                return joins.IndexJoin(kind, columns, left, right, condition)
            case nodes.Aggregate():
                return aggregation.Aggregate(
                    node.columns, self.compile(node.input), node.keys, node.calls, node.sets, node.grouping
                )  # fmt: skip
            case nodes.Window():
                return windows.Window(
                    node.columns, self.compile(node.input), node.partition_by, node.order_by, node.frame, node.calls
                )  # fmt: skip
            case nodes.With(body=body, ctes=plans):
                compiled = [
                    ctes.CteOperator(
                        cte.name, self.compile(cte.plan),
                        None if cte.step is None else self.compile(cte.step),
                        cte.union_all, cte.types, cte.modifies,
                    )
                    for cte in plans
                ]  # fmt: skip
                return ctes.With(self.compile(body), compiled)
        raise AssertionError(f"a node of a plan: {type(node).__name__}")
