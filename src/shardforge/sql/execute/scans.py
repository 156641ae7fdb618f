"""Reaching stored rows: by full keys, by spans of an index, by the whole table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shardforge import keys
from shardforge.errors import QueryError, StorageError
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.execute.context import ExecContext
from shardforge.sql.execute.expressions import Compiled, Row, compile_condition, compile_expression
from shardforge.sql.execute.operators import Batch, Batches, Compilation, layout_of, operator_for
from shardforge.sql.execute.tablestore import TableStore, table_store
from shardforge.sql.plan.physical import Bound, KeyAccess, SpanAccess

ROW_KEY, TABLE_OID = 0, -6
"""System columns of a Scan: the encoded row key, and the table's oid."""

Decode = Callable[[bytes, bytes], Row]


def row_decoder(table: Table, columns: Sequence[tuple[ColumnId, int]]) -> Decode:
    """A function from (row key, row bytes) to the wanted columns."""
    store = table_store(table)
    wanted = [attnum for _, attnum in columns]
    if all(attnum > 0 for attnum in wanted):
        decode = store.codec.decoder([store.positions[attnum] for attnum in wanted])
        return lambda key, value: decode(value)
    plain = [attnum for attnum in wanted if attnum > 0]
    decode = store.codec.decoder([store.positions[attnum] for attnum in plain])
    sources = [("plain", plain.index(a)) if a > 0 else ("key" if a == ROW_KEY else "oid", 0) for a in wanted]
    oid = table.id

    def with_system(key: bytes, value: bytes) -> Row:
        row = decode(value)
        return tuple([row[p] if kind == "plain" else key if kind == "key" else oid for kind, p in sources])

    return with_system


class _Access:
    """What both kinds of access share: decoding and the residual filter."""

    def __init__(self, node: KeyAccess | SpanAccess) -> None:
        self.table = node.table
        self.store: TableStore = table_store(node.table)
        self.columns = tuple(column for column, _ in node.columns)
        self.decode = row_decoder(node.table, node.columns)
        self.keys = self.store.keys_of(node.index)
        self.primary = node.index.primary
        self.filter = compile_condition(node.filter, layout_of(self.columns))

    def decoded(self, pairs: Sequence[tuple[bytes, bytes | None]], ctx: ExecContext) -> Batch:
        """Rows of (key, value) pairs that pass the filter; a missing value is no row."""
        decode, condition = self.decode, self.filter
        rows = [decode(key, value) for key, value in pairs if value is not None]
        if condition is None:
            return rows
        return [row for row in rows if condition(row, ctx) is True]


@operator_for(KeyAccess)
class KeyAccessOperator(_Access):
    """Rows by full unique keys, in the order of the keys, each once."""

    def __init__(self, node: KeyAccess, compilation: Compilation) -> None:
        super().__init__(node)
        self._keys = [[compile_expression(e, {}) for e in key] for key in node.keys]
        self._any_of = None if node.any_of is None else compile_expression(node.any_of, {})
        self.one_key = node.any_of is None and len(node.keys) == 1

    def index_keys(self, ctx: ExecContext) -> list[bytes]:
        """The encoded keys to look for; a NULL in a key finds nothing."""
        found: dict[bytes, None] = {}
        for expressions in self._keys:
            values = [e((), ctx) for e in expressions]
            if any(v is None for v in values):
                continue
            if self._any_of is None:
                found[self.keys.key(values)] = None
                continue
            elements = self._any_of((), ctx)
            for element in elements.elements if elements is not None else ():
                if element is not None:
                    found[self.keys.key([*values, element])] = None
        return list(found)

    async def row_keys(self, ctx: ExecContext) -> list[bytes]:
        """The keys of the rows: the index's own, or what its entries point to."""
        wanted = self.index_keys(ctx)
        if self.primary or not wanted:
            return wanted
        return [key for key in await ctx.transaction.get_many(wanted) if key is not None]

    async def batches(self, ctx: ExecContext) -> Batches:
        wanted = await self.row_keys(ctx)
        if not wanted:
            return
        if len(wanted) == 1:
            value = await ctx.transaction.get(wanted[0])
            rows = self.decoded(((wanted[0], value),), ctx)
        else:
            values = await ctx.transaction.get_many(wanted)
            rows = self.decoded(list(zip(wanted, values, strict=True)), ctx)
        if rows:
            yield rows


@operator_for(SpanAccess)
class SpanAccessOperator(_Access):
    """Rows of spans of an index, in key order within each span."""

    def __init__(self, node: SpanAccess, compilation: Compilation) -> None:
        super().__init__(node)
        self._equal = [compile_expression(e, {}) for e in node.equal]
        self._lower = _bound(node.lower)
        self._upper = _bound(node.upper)
        self._reverse = node.reverse
        self._limit = None if node.limit is None else compile_expression(node.limit, {})
        self._colocated_scan = node.table.sharding.kind == "colocated" and not self.keys.hashed

    def spans(self, ctx: ExecContext) -> list[tuple[bytes, bytes]]:
        """Spans to read now; none when a key value is NULL."""
        equal = [e((), ctx) for e in self._equal]
        if any(v is None for v in equal):
            return []
        bounds: list[tuple[Any, bool] | None] = []
        for bound in (self._lower, self._upper):
            if bound is None:
                bounds.append(None)
                continue
            value = bound[0]((), ctx)
            if value is None:
                return []
            bounds.append((value, bound[1]))
        return self.keys.spans(equal, bounds[0], bounds[1])

    async def batches(self, ctx: ExecContext) -> Batches:
        limit = None if self._limit is None else self._limit((), ctx)
        if limit is not None and limit <= 0:
            return
        spans = self.spans(ctx)
        if self._colocated_scan and not spans:
            async for batch in self._colocated(ctx):
                yield batch
            return
        for start, end in spans:
            async for pairs in ctx.transaction.scan(start, end, reverse=self._reverse, limit=limit):
                rows = self.decoded(await self._rows(pairs, ctx), ctx)
                if rows:
                    yield rows
                    if limit is not None:
                        limit -= len(rows)
                        if limit <= 0:
                            return
                await ctx.breathe()

    async def _rows(
        self, pairs: Sequence[tuple[bytes, bytes]], ctx: ExecContext
    ) -> Sequence[tuple[bytes, bytes | None]]:
        if self.primary:
            return pairs
        row_keys = [value for _, value in pairs]
        return list(zip(row_keys, await ctx.transaction.get_many(row_keys), strict=True))

    async def _colocated(self, ctx: ExecContext) -> Batches:
        """Rows of a shard-key table without its shard key: all of `g/`, keeping this table's rows."""
        store = self.store
        marker = keys.range_prefix(self.table.storage_id or self.table.id, self.table.indexes[0].number)[1:]
        async for pairs in ctx.transaction.scan(b"g", b"h"):
            own = [(key, value) for key, value in pairs if marker in key and _is_row_of(store, key, value)]
            rows = self.decoded(own, ctx)
            if rows:
                yield rows
            await ctx.breathe()


def _is_row_of(store: TableStore, key: bytes, value: bytes) -> bool:
    """Whether this is a row of the table: tables of one shard key lie among each other."""
    try:
        return store.row_key(store.codec.decode(value)) == key
    except (StorageError, QueryError, TypeError, ValueError):
        return False  # the bytes of another table's row


def _bound(bound: Bound | None) -> tuple[Compiled, bool] | None:
    return None if bound is None else (compile_expression(bound.expression, {}), bound.inclusive)


@operator_for(tree.Scan)
def _scan(node: tree.Scan, compilation: Compilation) -> SpanAccessOperator:
    """A scan that no rule has touched: the whole table."""
    return SpanAccessOperator(SpanAccess(node.table, node.alias, node.columns, node.table.indexes[0]), compilation)

