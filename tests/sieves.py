"""A scan's condition evaluated both ways: as the serving node does, and by its sieve, as the node of a shard does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, NamedTuple

from shardforge.errors import DatabaseError
from shardforge.sql.execute.scans import TableScanOperator, pairs
from shardforge.sql.parse import parse
from shardforge.sql.plan import nodes
from shardforge.sql.session.session import Session
from shardforge.sql.sieve.making import SieveMaker
from shardforge.sql.sieve.reading import read_sieve
from shardforge.txn.coordinator import Isolation

Pair = tuple[bytes, bytes]


class Judged(NamedTuple):
    """What becomes of one stored row."""

    row: tuple[Any, ...]
    passes: bool
    """By the sieve."""
    wanted: bool | None
    """By the whole condition; None: an error."""


class Scan:
    """The scan of a statement over one table, with the values that the statement runs with."""

    def __init__(self, session: Session, sql: str, params: tuple[Any, ...] = ()) -> None:
        self._session = session
        prepared = session.prepare_parsed(parse(sql)[0])
        assert prepared.executable is not None, "a query"
        [node] = _scans(prepared.executable.plan.root)
        self.node = node
        self.operator = TableScanOperator(node)
        self.run = SimpleNamespace(params=params, outer={}, eval=session.context().eval)

    def sieve(self) -> bytes:
        """Its sieve; empty: there is none."""
        attnum_of = dict(zip(self.node.columns, self.node.attnums, strict=True))
        return SieveMaker(self.node.table, attnum_of, self.node.condition, None).make(self.run)

    async def stored(self) -> AsyncIterator[Pair]:
        """All rows of the table's span."""
        transaction = self._session.instance.store.coordinator.begin(Isolation.READ_COMMITTED)
        try:
            async with aclosing(
                pairs(self.operator.access, SimpleNamespace(transaction=transaction))  # type: ignore[arg-type]
            ) as chunks:
                async for chunk in chunks:
                    for pair in chunk:
                        yield pair
        finally:
            await transaction.rollback()

    def judged(self, stored: list[Pair]) -> Iterator[Judged]:
        """Each stored row, both ways."""
        passes = read_sieve(self.sieve())
        for key, value in stored:
            row = self.operator.reader.row(key, value)
            yield Judged(row, passes(key, value), self._wanted(row))

    def _wanted(self, row: tuple[Any, ...]) -> bool | None:
        assert self.operator.filter is not None, "it has a condition"
        try:
            return bool(self.operator.filter([row], self.run))
        except DatabaseError:
            return None


def _scans(node: nodes.Node) -> list[nodes.TableScan]:
    found = [node] if isinstance(node, nodes.TableScan) else []
    for child in nodes.children(node):
        found += _scans(child)
    return found
