"""Terminals: the mix of transactions, keying and thinking times, what is done about errors (clauses 5.2 and 5.3)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import asyncpg

from bench.tpcc.results import FAILOVER, RETRIED, Results
from bench.tpcc.schema import Connection, Scale
from bench.tpcc.transactions import Action, UnknownItemError, Work
from bench.tpcc.values import Values

DECK = ("new_order",) * 10 + ("payment",) * 10 + ("order_status", "delivery", "stock_level")
"""Dealt again and again (clause 5.2.4.2): at least 43 % payments and 4 % of each of the last three."""
KEYING_SECONDS = {"new_order": 18, "payment": 3, "order_status": 2, "delivery": 2, "stock_level": 2}
THINKING_SECONDS = {
    "new_order": 12,
    "payment": 12,
    "order_status": 10,
    "delivery": 5,
    "stock_level": 5,
}
TERMINALS_A_WAREHOUSE = 10
RECONNECT_SECONDS = 0.05

Connect = Callable[[], Awaitable[Connection]]


@dataclass(frozen=True)
class Load:
    """How a run is made."""

    seconds: float
    terminals: int
    warmup_seconds: float = 0.0
    thinking: bool = False
    """With keying and thinking times, ten terminals a warehouse are what the specification wants."""
    isolation: str = "read_committed"
    seed: int = 1
    survives: bool = False
    """Whether it is no error that the serving node is lost: a terminal connects again, and goes on."""


async def run(connect: Connect, scale: Scale, load: Load, last_constant: int) -> Results:
    """Have all terminals work for the time of the load."""
    results = Results()
    loop = asyncio.get_running_loop()
    begin = loop.time() + load.warmup_seconds
    end = begin + load.seconds
    random = Random(load.seed)
    values = Values(random, load=last_constant)
    works = [
        Work(values, scale, 1 + n % scale.warehouses, 1 + n // scale.warehouses % scale.districts)
        for n in range(load.terminals)
    ]
    terminals = [_Terminal(connect, load, results, work, random) for work in works]
    cpu = 0.0

    async def begin_counting() -> None:
        nonlocal cpu
        await asyncio.sleep(begin - loop.time())
        cpu = time.process_time()

    counting = asyncio.create_task(begin_counting())
    await asyncio.gather(*(terminal.work(begin, end) for terminal in terminals))
    await counting
    results.seconds = load.seconds
    results.client_cpu_seconds = time.process_time() - cpu
    return results


class _Terminal:
    def __init__(
        self, connect: Connect, load: Load, results: Results, work: Work, random: Random
    ) -> None:
        self._connect = connect
        self._load = load
        self._results = results
        self._work = work
        self._random = random
        self._deck: list[str] = []
        self._connection: Connection | None = None

    async def work(self, begin: float, end: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end:
            kind = self._next_kind()
            action: Action = getattr(self._work, kind)()
            if self._load.thinking:
                await asyncio.sleep(min(KEYING_SECONDS[kind], max(0.0, end - loop.time())))
            asked = time.perf_counter()
            done = await self._until_done(kind, action, end)
            if done and begin <= loop.time() < end:
                self._results.response_seconds[kind].append(time.perf_counter() - asked)
                self._results.at_home += action.at_home
            if self._load.thinking:
                thinking = self._random.expovariate(1 / THINKING_SECONDS[kind])
                wanted = min(thinking, 10 * THINKING_SECONDS[kind])
                await asyncio.sleep(min(wanted, max(0.0, end - loop.time())))
        if self._connection is not None:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._connection.close()

    def _next_kind(self) -> str:
        if not self._deck:
            self._deck = list(DECK)
            self._random.shuffle(self._deck)
        return self._deck.pop()

    async def _until_done(self, kind: str, action: Action, end: float) -> bool:
        """Whether the transaction was committed, however many attempts that took."""
        results = self._results
        while asyncio.get_running_loop().time() < end:
            connection = self._connection
            try:
                if connection is None or connection.is_closed():
                    connection = None
                    connection = self._connection = await self._connect()
                async with connection.transaction(isolation=self._load.isolation):
                    await action.run(connection)
            except UnknownItemError:
                results.rolled_back += 1
                return False
            except asyncpg.PostgresError as error:
                if error.sqlstate in RETRIED:
                    results.retries[error.sqlstate] += 1
                    continue
                if not self._load.survives or error.sqlstate not in FAILOVER:
                    results.errors[f"{kind}: {error.sqlstate} {error}"] += 1
                    return False
                return await self._lost()
            except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                # The last one: the connection ended between an error and the server's being ready again.
                hangs = isinstance(error, TimeoutError) and connection is not None
                if hangs or not self._load.survives:
                    results.errors[f"{kind}: {error!r}"] += 1
                return await self._lost()
            else:
                return True
        return False

    async def _lost(self) -> bool:
        """Nobody knows what became of the transaction; it is not repeated. Connect again, in a moment."""
        self._results.lost_connections += 1
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        await asyncio.sleep(RECONNECT_SECONDS)
        return False
