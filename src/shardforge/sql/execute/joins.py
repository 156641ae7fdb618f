"""Joins: by hash, by index, and by trying every pair.

The right side of a hash join, and of a nested loop that is not lateral, is kept in memory. Rows that find no partner in
an outer join are extended with NULLs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import BATCH_ROWS, Account, Row, Run
from shardforge.sql.execute.expressions import compile_optional, layout_of
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import join_key_function
from shardforge.sql.execute.scans import TableScanOperator, pairs
from shardforge.txn.coordinator import Sieve

PROBE_ROWS = 64
"""Left rows that are joined before their results are handed on: each may have many partners."""

Pairing = Callable[[Row, Sequence[Row], Any], list[Row]]


def _matching(condition: Expression | None, layout: dict[ColumnId, int]) -> Pairing:
    """(left row, right rows, ctx) -> the right rows that satisfy the condition, each joined to the left row."""
    test = compile_optional(condition, layout)
    if test is None:
        return lambda left, rights, ctx: [left + right for right in rights]
    return lambda left, rights, ctx: [
        joined for right in rights if test(joined := left + right, ctx)
    ]


class HashJoin(Operator):
    """inner, left, full, semi and anti joins on equal keys."""

    def __init__(
        self, kind: str, columns: tuple[ColumnId, ...], left: Operator, right: Operator,
        left_keys: Sequence[Expression], right_keys: Sequence[Expression], condition: Expression | None,
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._kind = kind
        self._left = left
        self._right = right
        self._left_key = join_key_function(left_keys, left.layout)
        self._right_key = join_key_function(right_keys, right.layout)
        self._matching = _matching(condition, layout_of(left.columns + right.columns))
        self._plain = condition is None
        self._left_nulls = (None,) * len(left.columns)
        self._right_nulls = (None,) * len(right.columns)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        with Account(run) as account:
            table = await self._build(run, account)
            if self._kind == "full":
                async for batch in self._full(run, table):
                    yield batch
            elif table or self._kind in ("left", "anti"):
                join = {
                    "inner": self._inner, "left": self._left_join, "semi": self._semi, "anti": self._anti
                }[self._kind]  # fmt: skip
                out: list[Row] = []
                async with aclosing(self._left.batches(run)) as source:
                    async for batch in source:
                        for part in chunks(batch, PROBE_ROWS):
                            out += join(part, table, run)
                            if len(out) >= BATCH_ROWS:
                                await run.breathe(len(out))
                                yield out
                                out = []
                if out:
                    yield out

    async def _build(self, run: Run, account: Account) -> dict[Any, list[Row]]:
        table: dict[Any, list[Row]] = {}
        key_of = self._right_key
        full = self._kind == "full"
        async with aclosing(self._right.batches(run)) as source:
            async for batch in source:
                account.hold(batch)
                for row in batch:
                    key = key_of(row, run)
                    if key is None and not full:
                        continue
                    found = table.get(key)
                    if found is None:
                        table[key] = [row]
                    else:
                        found.append(row)
        return table

    def _inner(self, batch: list[Row], table: dict[Any, list[Row]], run: Run) -> list[Row]:
        key_of, matching = self._left_key, self._matching
        out: list[Row] = []
        for row in batch:
            key = key_of(row, run)
            if key is not None and (rights := table.get(key)):
                out += matching(row, rights, run)
        return out

    def _left_join(self, batch: list[Row], table: dict[Any, list[Row]], run: Run) -> list[Row]:
        key_of, matching, nulls = self._left_key, self._matching, self._right_nulls
        out: list[Row] = []
        for row in batch:
            key = key_of(row, run)
            rights = None if key is None else table.get(key)
            joined = matching(row, rights, run) if rights else None
            if joined:
                out += joined
            else:
                out.append(row + nulls)
        return out

    def _semi(self, batch: list[Row], table: dict[Any, list[Row]], run: Run) -> list[Row]:
        return [row for row in batch if self._has_partner(row, table, run)]

    def _anti(self, batch: list[Row], table: dict[Any, list[Row]], run: Run) -> list[Row]:
        return [row for row in batch if not self._has_partner(row, table, run)]

    def _has_partner(self, row: Row, table: dict[Any, list[Row]], run: Run) -> bool:
        key = self._left_key(row, run)
        rights = None if key is None else table.get(key)
        return bool(rights and (self._plain or self._matching(row, rights, run)))

    async def _full(self, run: Run, table: dict[Any, list[Row]]) -> Batches:
        """Every left row with its partners or NULLs, then the right rows that met nobody."""
        met: set[int] = set()
        test_nulls = self._right_nulls
        async with aclosing(self._left.batches(run)) as source:
            async for batch in source:
                out: list[Row] = []
                for row in batch:
                    key = self._left_key(row, run)
                    alone = True
                    for right in table.get(key, ()) if key is not None else ():
                        if joined := self._matching(row, (right,), run):
                            alone = False
                            met.add(id(right))
                            out += joined
                    if alone:
                        out.append(row + test_nulls)
                yield out
        rest = [
            self._left_nulls + right
            for rights in table.values()
            for right in rights
            if id(right) not in met
        ]
        if rest:
            yield rest


class NestedLoop(Operator):
    """Any join on any condition; `lateral` columns are given to the right side, which is run for each left row."""

    def __init__(
        self, kind: str, columns: tuple[ColumnId, ...], left: Operator, right: Operator,
        condition: Expression | None, lateral: Sequence[ColumnId],
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._kind = kind
        self._left = left
        self._right = right
        self._matching = _matching(condition, layout_of(left.columns + right.columns))
        self._given = [(column, left.layout[column]) for column in lateral if column in left.layout]
        self._lateral = bool(lateral)
        self._left_nulls = (None,) * len(left.columns)
        self._right_nulls = (None,) * len(right.columns)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        with Account(run) as account:
            rights = [] if self._lateral else await self._right.all_rows(run, account)
            met: set[int] = set()
            out: list[Row] = []
            async with aclosing(self._left.batches(run)) as source:
                async for batch in source:
                    for row in batch:
                        if self._lateral:
                            for column, offset in self._given:
                                run.outer[column] = row[offset]
                            with Account(run) as inner:
                                rights = await self._right.all_rows(run, inner)
                        await run.breathe(len(rights))
                        self._join(row, rights, run, out, met)
                        if len(out) >= BATCH_ROWS:
                            yield out
                            out = []
            if self._kind == "full":
                out += [self._left_nulls + right for right in rights if id(right) not in met]
            if out:
                yield out

    def _join(
        self, row: Row, rights: Sequence[Row], run: Run, out: list[Row], met: set[int]
    ) -> None:
        kind = self._kind
        if kind == "full":
            alone = True
            for right in rights:
                if joined := self._matching(row, (right,), run):
                    alone = False
                    met.add(id(right))
                    out += joined
            if alone:
                out.append(row + self._right_nulls)
            return
        joined = self._matching(row, rights, run)
        if kind == "inner":
            out += joined
        elif kind == "left":
            out += joined or [row + self._right_nulls]
        elif bool(joined) is (kind == "semi"):
            out.append(row)


class IndexJoin(Operator):
    """inner, left, semi and anti joins that look up each left row: point look-ups of a batch go together."""

    def __init__(
        self, kind: str, columns: tuple[ColumnId, ...], left: Operator, right: TableScanOperator,
        condition: Expression | None,
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._kind = kind
        self._left = left
        self._right = right
        self._matching = _matching(condition, layout_of(left.columns + right.columns))
        self._right_nulls = (None,) * len(right.columns)

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        async with aclosing(
            self._left.batches(run, goal if self._kind == "left" else None)
        ) as source:
            async for batch in source:
                if self._right.access.single:
                    partners = await self._points(batch, run)
                else:
                    sieve = self._right.sieve(run)
                    partners = [await self._looked_up(row, run, sieve) for row in batch]
                out: list[Row] = []
                for row, rights in zip(batch, partners, strict=True):
                    joined = self._matching(row, rights, run) if rights else []
                    if self._kind == "inner":
                        out += joined
                    elif self._kind == "left":
                        out += joined or [row + self._right_nulls]
                    elif bool(joined) is (self._kind == "semi"):
                        out.append(row)
                if out:
                    yield out

    async def _points(self, batch: list[Row], run: Run) -> list[list[Row]]:
        access, transaction = self._right.access, run.transaction
        keys = [access.key(row, run) for row in batch]
        distinct = list(dict.fromkeys([key for key in keys if key is not None]))
        row_keys: list[bytes | None] = list(distinct)
        if not access.primary:
            row_keys = list(await transaction.get_many(distinct))
        present = [key for key in row_keys if key is not None]
        values = dict(zip(present, await transaction.get_many(present), strict=True))
        found: dict[bytes | None, list[Row]] = {None: []}
        for key, row_key in zip(distinct, row_keys, strict=True):
            value = None if row_key is None else values[row_key]
            rows = []
            if row_key is not None and value is not None:
                rows = self._filtered([self._right.reader.row(row_key, value)], run)
            found[key] = rows
        return [found[key] for key in keys]

    async def _looked_up(self, row: Row, run: Run, sieve: Sieve | None) -> list[Row]:
        rows: list[Row] = []
        async with aclosing(pairs(self._right.access, run, row, sieve=sieve)) as chunks:
            async for chunk in chunks:
                rows += self._filtered(self._right.reader.rows(chunk), run)
        return rows

    def _filtered(self, rows: list[Row], run: Run) -> list[Row]:
        keep = self._right.filter
        return rows if keep is None else keep(rows, run)
