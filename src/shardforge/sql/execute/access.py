"""Where a plan's access leads, and what is found there: keys and spans from values, rows from stored pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final, TypeAlias

from shardforge.errors import unsupported
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.execute.context import Row
from shardforge.sql.execute.expressions import Function, Layout, compile_expression
from shardforge.sql.execute.keyspace import IndexSpace, Limit, Span
from shardforge.sql.execute.rowwriter import picker, row_codec, stored_positions
from shardforge.sql.plan.nodes import Access, Bound, Match

Pair: TypeAlias = tuple[bytes, bytes]
Pairs: TypeAlias = list[Pair]

ROW_KEY: Final = 0
"""The column number that stands for a row's key."""
TABLE_OID: Final = -6


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
