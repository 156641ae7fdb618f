"""Reading tables: point gets, index look-ups, spans in order or one after the other."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import product
from typing import Any, Final, TypeAlias

from shardforge.errors import unsupported
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.execute.context import BATCH_ROWS, Row, Run
from shardforge.sql.execute.expressions import Function, Layout, compile_expression
from shardforge.sql.execute.keyspace import IndexSpace, Limit, Span
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import RowsFunction, filter_function
from shardforge.sql.execute.rowwriter import picker, row_codec, stored_positions
from shardforge.sql.plan.nodes import Access, Bound, Match, TableScan, VirtualTableScan

Pair: TypeAlias = tuple[bytes, bytes]
Pairs: TypeAlias = list[Pair]

ROW_KEY: Final = 0
"""The column number that stands for a row's key."""
TABLE_OID: Final = -6
_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))


class RowReader:
    """(key, stored value) -> a row of the wanted columns."""

    def __init__(self, table: Table, attnums: Sequence[int]) -> None:
        position = stored_positions(table)
        stored = [attnum for attnum in attnums if attnum > 0]
        self.decode = row_codec(table).decoder([position[attnum] for attnum in stored])
        special = [attnum for attnum in attnums if attnum <= 0]
        for attnum in special:
            if attnum not in (ROW_KEY, TABLE_OID):
                raise unsupported("this system column")
        self._plain = not special
        self._key_last = special == [ROW_KEY] and attnums[-1] == ROW_KEY
        self._table_oid = table.id
        places = {attnum: offset for offset, attnum in enumerate([*stored, ROW_KEY, TABLE_OID])}
        self._pick = picker([places[attnum] for attnum in attnums])

    def rows(self, pairs: Pairs) -> list[Row]:
        """The rows of some pairs."""
        decode = self.decode
        if self._plain:
            return [decode(value) for _, value in pairs]
        if self._key_last:
            return [(*decode(value), key) for key, value in pairs]
        return [self.row(key, value) for key, value in pairs]

    def row(self, key: bytes, value: bytes) -> Row:
        """The row of one pair."""
        if self._plain:
            return self.decode(value)
        if self._key_last:
            return (*self.decode(value), key)
        return tuple(self._pick((*self.decode(value), key, self._table_oid)))


class AccessReader:
    """An access of the plan: the keys or spans that it selects, from the values that it is given."""

    def __init__(self, table: Table, access: Access, layout: Layout) -> None:
        self.access = access
        self.space = IndexSpace(table, access.index)
        self.primary = access.index.primary
        self._matches = [self._match(match, layout) for match in access.equal]
        self._low = self._bound(access.low, layout)
        self._high = self._bound(access.high, layout)
        self._shard = (
            None
            if access.shard is None
            else [compile_expression(value, layout) for value in access.shard]
        )
        self.owns = self.space.owner() if access.whole else None
        self.single = access.point and not any(match.many for match in access.equal)

    @staticmethod
    def _match(match: Match, layout: Layout) -> Function:
        function = compile_expression(match.expression, layout)
        if not match.many:
            return function

        def distinct(row: Any, ctx: Any) -> Any:
            array = function(row, ctx)
            return () if array is None else tuple(dict.fromkeys(array.elements))

        return distinct

    @staticmethod
    def _bound(bound: Bound | None, layout: Layout) -> Function | None:
        if bound is None:
            return None
        function, inclusive = compile_expression(bound.expression, layout), bound.inclusive
        return lambda row, ctx: Limit(function(row, ctx), inclusive)

    def _shard_values(self, row: Any, ctx: Any) -> list[Any] | None:
        return None if self._shard is None else [value(row, ctx) for value in self._shard]

    def key(self, row: Any, ctx: Any) -> bytes | None:
        """The one key of a `single` access; None when a value is NULL."""
        values = [match(row, ctx) for match in self._matches]
        if None in values:
            return None
        shard = self._shard_values(row, ctx)
        if shard is not None and None in shard:
            return None
        return self.space.unique_key(values, shard or ())

    def keys(self, row: Any, ctx: Any) -> list[bytes]:
        """The keys of a point access, each once."""
        if self.single:
            key = self.key(row, ctx)
            return [] if key is None else [key]
        shard = self._shard_values(row, ctx)
        if shard is not None and None in shard:
            return []
        encode = self.space.unique_key
        return list(
            dict.fromkeys(
                [encode(v, shard or ()) for v in self._combinations(row, ctx) if None not in v]
            )
        )

    def _combinations(self, row: Any, ctx: Any) -> list[tuple[Any, ...]]:
        lists = [
            match(row, ctx) if many else (match(row, ctx),)
            for match, (_, many) in zip(self._matches, self.access.equal, strict=True)
        ]
        return list(product(*lists))

    def spans(self, row: Any, ctx: Any) -> list[Span]:
        """The spans of any other access, each once."""
        if self.access.whole:
            return self.space.whole() if self._shard is None else self._spans_of((), row, ctx)
        found: dict[Span, None] = {}
        for values in self._combinations(row, ctx):
            found.update(dict.fromkeys(self._spans_of(values, row, ctx)))
        return list(found)

    def _spans_of(self, values: tuple[Any, ...], row: Any, ctx: Any) -> list[Span]:
        low = None if self._low is None else self._low(row, ctx)
        high = None if self._high is None else self._high(row, ctx)
        if (low is not None and low.value is None) or (high is not None and high.value is None):
            return []
        return self.space.spans(values, low, high, self._shard_values(row, ctx))

    async def pairs(
        self, run: Run, row: Any = (), goal: int | None = None
    ) -> AsyncGenerator[Pairs, None]:
        """(row key, stored row) of everything that is selected."""
        transaction = run.transaction
        if self.access.point:
            keys = self.keys(row, run)
            if not self.primary:
                keys = [key for key in await transaction.get_many(keys) if key is not None]
            values = await transaction.get_many(keys)
            found = [(k, v) for k, v in zip(keys, values, strict=True) if v is not None]
            if found:
                yield found
            return
        spans = self.spans(row, run)
        reverse = self.access.reverse
        if self.access.merged and len(spans) > 1:
            skip = self.space.order_prefix()
            source = merged_spans(run, spans, skip, reverse=reverse, goal=goal)
        else:
            source = successive_spans(run, spans, reverse=reverse, goal=goal)
        async with aclosing(source) as chunks:
            async for chunk in chunks:
                kept = chunk if self.owns is None else [p for p in chunk if self.owns(p[0])]
                if not self.primary:
                    row_keys = [value for _, value in kept]
                    values = await transaction.get_many(row_keys)
                    kept = [(k, v) for k, v in zip(row_keys, values, strict=True) if v is not None]
                if kept:
                    yield kept


async def successive_spans(
    run: Run, spans: Sequence[Span], *, reverse: bool, goal: int | None
) -> AsyncGenerator[Pairs, None]:
    """Pairs of one span after the other."""
    if goal is None:
        async with aclosing(run.transaction.scan_spans(spans, reverse=reverse)) as found:
            async for chunk in found:
                yield chunk
        return
    left = goal
    for start, end in spans:
        scan = run.transaction.scan(start, end, reverse=reverse, limit=left)
        async with aclosing(_generator(scan)) as chunks:
            async for chunk in chunks:
                left -= len(chunk)
                yield chunk
        if left <= 0:
            break


async def merged_spans(
    run: Run, spans: Sequence[Span], skip: int, *, reverse: bool, goal: int | None
) -> AsyncGenerator[Pairs, None]:
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
            scan = run.transaction.scan(start, end, reverse=reverse, limit=goal)
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

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        filter_rows, rows_of = self.filter, self.reader.rows
        pairs = self.access.pairs(run, (), goal if filter_rows is None else None)
        async with aclosing(pairs) as chunks:
            async for chunk in chunks:
                rows = rows_of(chunk)
                if filter_rows is not None:
                    rows = filter_rows(rows, run)
                if rows:
                    yield rows
