"""Reading tables: point gets, index look-ups, spans in order or one after the other."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from shardforge.sql.execute.access import TABLE_OID, AccessReader, Pairs, RowReader
from shardforge.sql.execute.context import BATCH_ROWS, Run
from shardforge.sql.execute.expressions import Layout, compile_expression
from shardforge.sql.execute.keyspace import Span
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import RowsFunction, filter_function, kept, may_wait
from shardforge.sql.execute.rowwriter import picker
from shardforge.sql.plan.nodes import TableScan, VirtualTableScan
from shardforge.sql.sieve.making import SieveMaker
from shardforge.sql.sieve.terms import Owner
from shardforge.txn.coordinator import Sieve

_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))


async def pairs(
    reader: AccessReader, run: Run, row: Any = (), goal: int | None = None, sieve: Sieve | None = None
) -> AsyncGenerator[Pairs, None]:  # fmt: skip
    """(row key, stored row) of everything that is selected; what does not pass the sieve may be missing."""
    transaction = run.transaction
    if reader.access.point:
        keys = reader.keys(row, run)
        if not reader.primary:
            keys = [key for key in await transaction.get_many(keys) if key is not None]
        values = await transaction.get_many(keys)
        found = [(k, v) for k, v in zip(keys, values, strict=True) if v is not None]
        if found:
            yield found
        return
    spans = reader.spans(row, run)
    reverse = reader.access.reverse
    if reader.access.merged and len(spans) > 1:
        skip = reader.space.order_prefix()
        source = merged_spans(run, spans, skip, reverse=reverse, goal=goal, sieve=sieve)
    else:
        source = successive_spans(run, spans, reverse=reverse, goal=goal, sieve=sieve)
    async with aclosing(source) as chunks:
        async for chunk in chunks:
            kept = chunk if reader.owns is None else [p for p in chunk if reader.owns(p[0])]
            if not reader.primary:
                row_keys = [value for _, value in kept]
                values = await transaction.get_many(row_keys)
                kept = [(k, v) for k, v in zip(row_keys, values, strict=True) if v is not None]
            if kept:
                yield kept


async def successive_spans(
    run: Run, spans: Sequence[Span], *, reverse: bool, goal: int | None, sieve: Sieve | None = None
) -> AsyncGenerator[Pairs, None]:
    """Pairs of one span after the other."""
    if goal is None:
        scan_all = run.transaction.scan_spans(spans, reverse=reverse, sieve=sieve)
        async with aclosing(scan_all) as found:
            async for chunk in found:
                yield chunk
        return
    left = goal
    for start, end in spans:
        scan = run.transaction.scan(start, end, reverse=reverse, limit=left, sieve=sieve)
        async with aclosing(_generator(scan)) as chunks:
            async for chunk in chunks:
                left -= len(chunk)
                yield chunk
        if left <= 0:
            break


async def merged_spans(
    run: Run, spans: Sequence[Span], skip: int, *, reverse: bool, goal: int | None, sieve: Sieve | None = None
) -> AsyncGenerator[Pairs, None]:  # fmt: skip
    """Pairs of all spans in order of what follows the first `skip` bytes of their keys."""
    order: Callable[[bytes], bytes]
    if reverse:  # no key is a prefix of another, so complements sort the other way round
        order = lambda key: key[skip:].translate(_COMPLEMENT)  # noqa: E731
    else:
        order = lambda key: key[skip:]  # noqa: E731
    async with AsyncExitStack() as stack:
        heap: list[tuple[bytes, int]] = []
        sources: list[AsyncIterator[Pairs]] = []
        buffers: list[tuple[Pairs, int]] = []
        for start, end in spans:
            scan = run.transaction.scan(start, end, reverse=reverse, limit=goal, sieve=sieve)
            source = await stack.enter_async_context(aclosing(_generator(scan)))
            chunk = await anext(source, None)
            if chunk:
                heap.append((order(chunk[0][0]), len(sources)))
                sources.append(source)
                buffers.append((chunk, 0))
        heapq.heapify(heap)
        merged: Pairs = []
        size = BATCH_ROWS if goal is None else min(goal, BATCH_ROWS)
        while heap:
            _, number = heap[0]
            chunk, at = buffers[number]
            merged.append(chunk[at])
            at += 1
            if at == len(chunk):
                chunk, at = await anext(sources[number], None) or [], 0
            if chunk:
                buffers[number] = (chunk, at)
                heapq.heapreplace(heap, (order(chunk[at][0]), number))
            else:
                heapq.heappop(heap)
            if len(merged) >= size:
                yield merged
                merged = []
        if merged:
            yield merged


def _generator(scan: AsyncIterator[Pairs]) -> AsyncGenerator[Pairs, None]:
    return scan  # type: ignore[return-value]


class VirtualScan(Operator):
    """Rows of a catalog table, made now."""

    def __init__(self, node: VirtualTableScan) -> None:
        super().__init__(node.columns)
        self._table = node.table
        self._pick = picker(
            [len(node.table.columns) if p == TABLE_OID else p for p in node.positions]
        )
        self._filter = (
            None if node.condition is None else filter_function(node.condition, self.layout)
        )

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        pick, suffix = self._pick, (self._table.id,)
        rows = [
            tuple(pick((*row, *suffix))) for row in self._table.rows(run.exec.virtual_context())
        ]
        if self._filter is not None:
            rows = self._filter(rows, run)
        for batch in chunks(rows):
            yield batch


class TableScanOperator(Operator):
    """Rows of a table."""

    def __init__(self, node: TableScan, layout: Layout | None = None) -> None:
        super().__init__(node.columns)
        self.node = node
        self.access = AccessReader(node.table, node.access, layout or {})
        self.reader = RowReader(node.table, node.attnums)
        self.filter: RowsFunction | None = (
            None if node.condition is None else filter_function(node.condition, self.layout)
        )
        self._test = (
            compile_expression(node.condition, self.layout)
            if node.condition is not None and may_wait(node.condition)
            else None
        )
        self._maker = self._sieve_maker()

    def _sieve_maker(self) -> SieveMaker | None:
        """None where a sieve would leave nothing out, or rows are not what is scanned."""
        node, access = self.node, self.access
        if not access.primary or node.access.point:
            return None
        place = access.space.place() if node.access.whole else None
        if node.condition is None and place is None:
            return None
        attnum_of = dict(zip(node.columns, node.attnums, strict=True))
        owner = None if place is None else Owner(*place)
        return SieveMaker(node.table, attnum_of, node.condition, owner)

    def sieve(self, run: Run, rows_wanted: int | None = None) -> Sieve | None:
        """What of this execution's rows a shard elsewhere may leave out; `rows_wanted` of the others will be taken."""
        maker, access = self._maker, self.node.access
        if maker is None:
            return None
        if rows_wanted is not None and access.merged:
            if (
                rows_wanted < access.spans
            ):  # each span would be read up to its first row that passes
                return None
            rows_wanted = rows_wanted // access.spans + 1  # of each span
        return Sieve(lambda: maker.make(run), rows_wanted)

    @property
    def may_wait(self) -> bool:
        """Whether its condition may have to wait for something."""
        return self._test is not None

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        filter_rows, rows_of, test = self.filter, self.reader.rows, self._test
        # What is found is what is taken, unless some of it is filtered out or another table's.
        exact = filter_rows is None and self.access.owns is None
        found = pairs(self.access, run, (), goal if exact else None, self.sieve(run, goal))
        async with aclosing(found) as chunks:
            async for chunk in chunks:
                rows = rows_of(chunk)
                if test is not None:
                    rows = await kept(test, rows, run)
                elif filter_rows is not None:
                    rows = filter_rows(rows, run)
                if rows:
                    yield rows
                if len(chunk) >= BATCH_ROWS:
                    await run.breathe(len(chunk))
