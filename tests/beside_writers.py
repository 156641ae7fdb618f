"""ALTER TABLE under way beside writers: a table, a gate that holds the work, and what must be true at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shardforge.node import Node
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.ddl import rewrite
from shardforge.sql.ddl.backfill import row_writer
from shardforge.sql.ddl.bulk import BulkWriter
from shardforge.sql.ddl.context import Ddl
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.session.ddl_context import begin_ddl
from shardforge.sql.session.session import Session
from shardforge.txn.coordinator import Isolation
from tests.inprocess import run, running_node, session_of

Scenario = Callable[[Node, Session], Awaitable[None]]
ROWS = rewrite.ROWS_UNDER_THE_LOCK + 500
WIDEN = "alter table t alter n type bigint"
TABLE = (
    "create table t (id int primary key, n int, u int unique, s text)",
    "create index t_n on t (n)",
    "create index t_even on t (upper(s)) where n % 2 = 0",
    f"insert into t select g, g, g * 10, 's' || g from generate_series(1, {ROWS}) g",
)
BARE = (
    "create table t (id int not null, n int, u int unique, s text)",
    *TABLE[1:],
)


def play(scenario: Scenario, table: tuple[str, ...] = TABLE) -> None:
    async def main() -> None:
        async with running_node() as node:
            session = session_of(node)
            for sql in table:
                await run(session, sql)
            await asyncio.wait_for(scenario(node, session), 60)

    asyncio.run(main())


async def described(session: Session) -> Table:
    found = session.catalog.relation_by_id((await run(session, "select 't'::regclass::oid"))[0][0])
    assert isinstance(found, Table)
    return found


async def stored(node: Node, table: Table) -> list[dict[bytes, bytes]]:
    """What is stored of each of its indexes, the rows first."""
    assert node.instance is not None
    reading = node.instance.store.coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
    found = []
    for index in table.indexes:
        space = IndexSpace(table, index)
        owns = space.owner() or (lambda key: True)
        pairs: dict[bytes, bytes] = {}
        async for chunk in reading.scan_spans(space.whole()):
            pairs.update((key, value) for key, value in chunk if owns(key))
        found.append(pairs)
    await reading.rollback()
    return found


async def indexes_agree(node: Node, session: Session) -> None:
    """The table's indexes have the entries of its rows, and no others."""
    table = await described(session)
    rows, *entries = await stored(node, table)
    ddl = Ddl(begin_ddl(session))
    writer = row_writer(ddl, table)
    decoded = {key: writer.decode(value) for key, value in rows.items()}
    assert all(writer.row_key(row) == key for key, row in decoded.items())
    for index, found in zip(writer.indexes, entries, strict=True):
        made = [(index.entry(row, ddl.ctx.execution), key) for key, row in decoded.items()]
        assert found == {entry.key: key for entry, key in made if entry is not None}
    await session.rollback()


async def nothing_is_held(node: Node) -> None:
    """No lock, no snapshot, no feed."""
    assert node.instance is not None
    coordinator = node.instance.store.coordinator
    assert not list(node.instance.catalog.locks.held())
    assert not coordinator.feeds
    assert not len(coordinator.snapshots)


class Gate:
    """Holds the first call of a coroutine function, before or after it does its work."""

    def __init__(
        self, patch: pytest.MonkeyPatch, owner: object, name: str, *, after: bool = False
    ) -> None:
        self.reached, self._open = asyncio.Event(), asyncio.Event()
        real: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def held(*arguments: Any) -> Any:
            if not after:
                await self._wait()
            result = await real(*arguments)
            if after:
                await self._wait()
            return result

        patch.setattr(owner, name, held)

    async def _wait(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self._open.wait()

    @asynccontextmanager
    async def beside(self, session: Session, sql: str) -> AsyncIterator[asyncio.Task[Any]]:
        """The statement under way, held; it goes on afterwards."""
        task = asyncio.create_task(run(session, sql))
        await asyncio.wait([task, asyncio.create_task(self.reached.wait())],
                           return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
        assert not task.done(), task.exception()
        yield task
        self._open.set()


def after_the_copy(patch: pytest.MonkeyPatch) -> Gate:
    return Gate(patch, rewrite, "copy", after=True)


def at_the_first_batch(patch: pytest.MonkeyPatch) -> Gate:
    return Gate(patch, BulkWriter, "flush")


async def nothing_is_left(node: Node, session: Session, begun: list[Table]) -> None:
    """The table is as it was, and of what was written elsewhere nothing remains."""
    assert node.instance is not None
    await nothing_is_held(node)
    table = await described(session)
    assert table.storage_id not in [one.storage_id for one in begun]
    while await node.instance.catalog.purge_dropped():
        pass
    for one in begun:
        assert not any(await stored(node, one))
    assert not node.instance.catalog.building
    await indexes_agree(node, session)
    assert await run(session, "select count(*) from t where id > 0") == await run(
        session, "select count(*) from t where id + 0 > 0"
    )
    await run(session, "update t set n = 1 where id = 1")


def watched(patch: pytest.MonkeyPatch) -> list[Table]:
    """The tables that rewriting begins to fill."""
    begun: list[Table] = []

    class Watched(rewrite.Conversion):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            begun.append(self.new)

    patch.setattr(rewrite, "Conversion", Watched)
    return begun
