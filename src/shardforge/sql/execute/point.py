"""One row by its primary key: the shortest way from parameters to a result row.

    key encode -> get -> decode of the wanted columns -> projection

A plan qualifies when it is a projection (or none) over a scan that reads one primary key. Everything is compiled
beforehand; when the outputs are plain columns, decoding yields them directly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.execute.context import ExecContext, Row, Run
from shardforge.sql.execute.expressions import Function
from shardforge.sql.execute.rows import may_wait, row_function
from shardforge.sql.execute.scans import TableScanOperator
from shardforge.sql.plan import nodes


class Parameters:
    """What the expressions of a statement about one row are evaluated with."""

    __slots__ = ("eval", "outer", "params")

    def __init__(self, context: ExecContext, params: Sequence[Any]) -> None:
        self.eval = context.eval
        self.params = params
        self.outer: dict[Any, Any] = {}


class PointRead:
    """A compiled point read."""

    __slots__ = ("_filter", "_key", "_project", "_row")

    def __init__(self, scan: nodes.TableScan, outputs: Sequence[tree.Expression] | None) -> None:
        project: Function | None = None
        if outputs is not None:
            attnums = dict(zip(scan.columns, scan.attnums, strict=True))
            plain = [attnums.get(o.column) for o in outputs if isinstance(o, tree.ColumnRef)]
            if scan.condition is None and len(plain) == len(outputs) and None not in plain:
                columns = tuple(o.column for o in outputs if isinstance(o, tree.ColumnRef))
                scan = replace(
                    scan, columns=columns, attnums=tuple(a for a in plain if a is not None)
                )
            else:
                project = row_function(outputs, {c: at for at, c in enumerate(scan.columns)})
        operator = TableScanOperator(scan)
        self._key: Callable[[Any, Any], bytes | None] = operator.access.key
        self._row = operator.reader.row
        self._filter = operator.filter
        self._project = project

    def _result(self, key: bytes, data: bytes | None, ctx: Any) -> Row | None:
        if data is None:
            return None
        row = self._row(key, data)
        if self._filter is not None and not self._filter([row], ctx):
            return None
        return row if self._project is None else self._project(row, ctx)

    async def read(self, run: Run) -> Row | None:
        """The row in the run's transaction."""
        key = self._key((), run)
        if key is None:
            return None
        return self._result(key, await run.transaction.get(key), run)

    def read_now(self, context: ExecContext, params: Sequence[Any]) -> list[Row] | None:
        """The row as it is now, outside a transaction; None when another's commit has to be awaited."""
        ctx = Parameters(context, params)
        key = self._key((), ctx)
        if key is None:
            return []
        found = context.coordinator.newest_now(key)
        if found is None:
            return None
        row = self._result(key, found[1], ctx)
        return [] if row is None else [row]

    def read_within(self, context: ExecContext, params: Sequence[Any]) -> list[Row] | None:
        """What a statement that reads nothing else sees in the context's transaction; None: it takes `read`."""
        transaction = context.transaction
        assert transaction is not None, "a statement runs in a transaction"
        ctx = Parameters(context, params)
        key = self._key((), ctx)
        if key is None:
            return []
        found = transaction.newest_now(key)
        if found is None:
            return None
        row = self._result(key, found[1], ctx)
        return [] if row is None else [row]

    async def read_latest(self, context: ExecContext, params: Sequence[Any]) -> list[Row]:
        """The row as it is now, outside a transaction."""
        ctx = Parameters(context, params)
        key = self._key((), ctx)
        if key is None:
            return []
        row = self._result(key, await context.coordinator.read_latest(key), ctx)
        return [] if row is None else [row]


def point_read(node: nodes.Node) -> PointRead | None:
    """The plan as a point read, if it is one."""
    outputs = None
    if isinstance(node, nodes.Project):
        outputs, node = node.outputs, node.input
    if not isinstance(node, nodes.TableScan) or may_wait((outputs, node.condition)):
        return None
    access = node.access
    if not access.point or not access.index.primary or any(match.many for match in access.equal):
        return None
    return PointRead(node, outputs)
