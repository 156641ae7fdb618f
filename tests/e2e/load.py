"""Clients that write and read without a pause while a cluster is disturbed, and what they were told.

A number whose INSERT was acknowledged has to be there ever after; one whose outcome was unknown may be. A count that
was begun after an acknowledgement has to include it. Only errors that tell a client to try again are allowed.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg

from tests.e2e import lists
from tests.e2e.client import RETRIABLE, Client, Connection
from tests.e2e.clusters import ClusterProcesses

ACCOUNTS = 20
INSIST_SECONDS_MAX = 60.0

T = TypeVar("T")


@dataclass
class Writer(Client):
    """Inserts its own numbers; `unknown` are those whose INSERT got no answer."""

    acknowledged: list[int] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    value: int = 0

    def step(self, connection: Connection) -> None:
        """Insert the next number."""
        self.value += 1
        self.unknown.add(self.value)
        connection.execute(
            "INSERT INTO kept (writer, value) VALUES (%s, %s)", (self.number, self.value)
        )
        self.unknown.discard(self.value)
        self.acknowledged.append(self.value)


@dataclass
class Reader(Client):
    """Counts what the writers were acknowledged."""

    writers: Sequence[Writer] = ()

    def step(self, connection: Connection) -> None:
        """One count: no acknowledgement before it may be missing."""
        before = sum(len(writer.acknowledged) for writer in self.writers)
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
        if row[0] < before:  # type: ignore[operator]
            self.wrong.append(f"a read saw {row[0]} rows after {before} were acknowledged")


@dataclass
class Mover(Client):
    """Moves money between accounts, and counts it: there is always as much."""

    random: random.Random = field(default_factory=lambda: random.Random(1))

    def step(self, connection: Connection) -> None:
        """One transfer, and one look at all accounts."""
        one, other = self.random.sample(range(ACCOUNTS), 2)
        with connection.transaction():
            for account, amount in ((one, -1), (other, 1)):
                connection.execute(
                    "UPDATE account SET balance = balance + %s WHERE id = %s", (amount, account)
                )
        row = connection.execute("SELECT sum(balance), count(*) FROM account").fetchone()
        if row != (0, ACCOUNTS):
            self.wrong.append(f"the accounts hold {row}")


def insist(cluster: ClusterProcesses, work: Callable[[Connection], T]) -> T:
    """What `work` comes to, over another connection whenever a client is to try again. It must bear repetition."""
    deadline = time.monotonic() + INSIST_SECONDS_MAX
    while True:
        try:
            with cluster.connect() as connection:
                return work(connection)
        except psycopg.OperationalError as error:
            retriable = error.sqlstate is None or error.sqlstate in RETRIABLE
            if not retriable or time.monotonic() > deadline:
                raise


def _prepare(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS kept (writer int, value int, PRIMARY KEY (writer, value))"
    )
    connection.execute("CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance int)")
    connection.execute(
        "INSERT INTO account SELECT g, 0 FROM generate_series(0, %s) g ON CONFLICT DO NOTHING",
        (ACCOUNTS - 1,),
    )
    lists.prepare(connection)


class Load:
    """The clients. Made by `load`."""

    def __init__(
        self, cluster: ClusterProcesses, writers: int, readers: int, movers: int, appenders: int
    ) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        insist(cluster, _prepare)
        dsn = cluster.dsn
        self.writers = [Writer(number, dsn, self._stop) for number in range(writers)]
        self.readers = [
            Reader(number, dsn, self._stop, writers=self.writers) for number in range(readers)
        ]
        self.movers = [
            Mover(number, dsn, self._stop, random=random.Random(number)) for number in range(movers)
        ]
        values = itertools.count(1)
        self.appenders = [
            lists.Appender(number, dsn, self._stop, random=random.Random(number), values=values)
            for number in range(appenders)
        ]
        self._threads = [
            threading.Thread(target=client.run, daemon=True) for client in self.clients
        ]
        for thread in self._threads:
            thread.start()

    @property
    def clients(self) -> list[Client]:
        """All of them."""
        return [*self.writers, *self.readers, *self.movers, *self.appenders]

    @property
    def told(self) -> Counter[str]:
        """What errors there were."""
        return sum((client.told for client in self.clients), Counter[str]())

    def knows(self, dsn: str) -> None:
        """Give the clients another connection string, for when they connect again."""
        for client in self.clients:
            client.dsn = dsn

    def first_after(self, moment: float) -> float:
        """The seconds from a moment to the first acknowledgement of a write after it."""
        deadline = moment + 60
        while time.monotonic() < deadline:
            later = [writer.last for writer in self.writers if writer.last > moment]
            if later:
                return min(later) - moment
            time.sleep(0.002)
        raise AssertionError("no write succeeded within a minute")

    def go_on(self) -> float:
        """Return when a write succeeded that began later than now; how long that took."""
        return self.first_after(time.monotonic())

    def end(self) -> None:
        """Stop the clients."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def check_so_far(self) -> None:
        """Whether a client was told anything wrong yet."""
        for client in self.clients:
            assert not client.wrong, client.wrong[:3]

    def check(self) -> None:
        """Compare what is there with what the clients were told."""
        self.end()
        self.check_so_far()
        rows = insist(
            self._cluster,
            lambda connection: connection.execute("SELECT writer, value FROM kept").fetchall(),
        )
        for writer in self.writers:
            found = {value for number, value in rows if number == writer.number}
            lost = set(writer.acknowledged) - found
            assert not lost, f"writer {writer.number}: acknowledged and lost: {sorted(lost)[:5]}"  # type: ignore[type-var]
            made_up = found - set(writer.acknowledged) - writer.unknown
            assert not made_up, f"writer {writer.number}: refused and there: {made_up}"
        wrong = insist(self._cluster, lambda connection: lists.wrong(self.appenders, connection))
        assert not wrong, wrong[:3]


@contextmanager
def load(
    cluster: ClusterProcesses,
    *,
    writers: int = 2,
    readers: int = 1,
    movers: int = 0,
    appenders: int = 0,
) -> Iterator[Load]:
    """Clients of a running cluster; stopped at the end."""
    clients = Load(cluster, writers, readers, movers, appenders)
    try:
        yield clients
    finally:
        clients.end()
