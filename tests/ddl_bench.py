"""DDL over a store in memory, without session, planner or protocol: each statement in a transaction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shardforge.adapters.clock import SystemClock
from shardforge.config import Config
from shardforge.errors import DatabaseError
from shardforge.sql.catalog.functions import CatalogFunctions
from shardforge.sql.catalog.sequences import SequenceState
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.catalog.tablelocks import LockOwner
from shardforge.sql.ddl import execute_ddl
from shardforge.sql.parse import parse
from shardforge.sql.session.settings import Settings
from shardforge.txn.coordinator import Isolation
from shardforge.txn.store import open_store
from tests.inline import Inline


class Evaluation:
    """What expressions over rows are evaluated with."""

    def __init__(self, bench: Bench) -> None:
        self.eval = self
        self.settings = bench.settings
        self.session = bench
        self.bench = bench
        self.params: tuple[Any, ...] = ()
        self.outer: dict[Any, Any] = {}
        self.statement_us = self.transaction_us = 0

    @property
    def catalog(self) -> CatalogFunctions:
        bench = self.bench
        return CatalogFunctions(
            bench.catalog, bench.search_path, (bench.store.sequences, bench.sequences)
        )


class Bench:
    """A session's side of DDL, committing each statement unless `begin` was called."""

    def __init__(
        self, store: CatalogStore, database: str = "shardforge", session_id: int = 7
    ) -> None:
        self.store = store
        self.database = database
        self.session_id = session_id
        self.user = "shardforge"
        self.settings = Settings()
        self.sequences = SequenceState(self.settings)
        self.lock_owner = LockOwner(session_id)
        self.catalog = store.current(database)
        self.notices: list[str] = []
        self.in_block = False
        self.transaction: Any = None
        self.execution = Evaluation(self)

    @property
    def search_path(self) -> tuple[str, ...]:
        return self.catalog.session_path(("public",), self.session_id)

    def sessions_of(self, database: str) -> int:
        return 0

    def notice(
        self, severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = ""
    ) -> None:
        self.notices.append(f"{severity}: {message}" + (f"\n{detail}" if detail else ""))

    async def begin(self) -> None:
        self.in_block = True
        self.transaction = self.store.coordinator.begin(Isolation.READ_COMMITTED)

    async def end(self, *, commit: bool = True) -> None:
        transaction, self.transaction, self.in_block = self.transaction, None, False
        if commit:
            await transaction.commit()
            self.catalog = self.store.publish(self.catalog)
        else:
            await transaction.rollback()
            self.catalog = self.store.current(self.database)
        self.store.locks.release_all(self.lock_owner)

    async def run(self, text: str) -> str:
        """Run statements; the last one's tag."""
        tag = ""
        for statement in parse(text):
            alone = not self.in_block
            self.catalog = self.store.refresh(self.catalog)
            if alone:
                self.transaction = self.store.coordinator.begin(Isolation.READ_COMMITTED)
            try:
                tag = await execute_ddl(statement.node, self)
            except BaseException:
                if alone:
                    await self.end(commit=False)
                raise
            if alone:
                await self.end()
        return tag

    async def fails(self, text: str) -> tuple[str, str, str]:
        """(sqlstate, message, detail) of a statement that must fail."""
        try:
            await self.run(text)
        except DatabaseError as error:
            return error.sqlstate, error.message, error.detail
        raise AssertionError(f"no error from: {text}")


def on_bench(test: Callable[[Bench], Awaitable[None]]) -> None:
    """Run `test` with a fresh catalog in memory."""

    async def run() -> None:
        store = await open_store(None, Config(), SystemClock(), Inline())
        try:
            await test(Bench(await CatalogStore.open(store)))
        finally:
            await store.close()

    asyncio.run(run())
