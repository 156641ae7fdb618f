"""Clients whose serializable transactions read lists and append to them; their history must have an order in time.

The checker is that of simulated runs (`shardforge.sim.checkers.wrong_lists`). Lists stay short: after a while the
clients go on with new ones.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg

from shardforge.sim.checkers import Element, Transaction, wrong_lists
from tests.e2e.client import Client, Connection

LISTS = 6
"""So many at a time are read and written."""
TRANSACTIONS_EACH = 150
"""After so many there are new lists."""
REFUSED = {"40001", "40P01"}
UPSERT = """INSERT INTO lists (k, v) VALUES (%s, %s)
    ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || excluded.v"""


@dataclass
class Appender(Client):
    """Carries out transactions of one to four reads and appends, and remembers all of them."""

    random: random.Random = field(default_factory=lambda: random.Random(1))
    values: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    """What is appended: shared by all of them, so no element comes twice."""
    transactions: list[Transaction] = field(default_factory=list)

    def step(self, connection: Connection) -> None:
        """One transaction."""
        first = len(self.transactions) // TRANSACTIONS_EACH * LISTS
        transaction = Transaction(began=time.monotonic())
        for _ in range(self.random.randint(1, 4)):
            key = first + self.random.randrange(LISTS)
            appended = [next(self.values)] if self.random.random() < 0.5 else []
            kind = "append" if appended else "read"
            transaction.elements.append(Element(kind, key, appended))
        self.transactions.append(transaction)
        committing = False
        try:
            connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
            for element in transaction.elements:
                _carry_out(connection, element)
            committing = True
            connection.execute("COMMIT")
        except psycopg.Error as error:
            refused = not committing or error.sqlstate in REFUSED
            transaction.outcome = "refused" if refused else "unknown"
            if error.sqlstate in REFUSED and not connection.broken:
                connection.execute("ROLLBACK")
                self.told[error.sqlstate or ""] += 1
                return
            raise
        transaction.ended, transaction.outcome = time.monotonic(), "ok"


def _carry_out(connection: Connection, element: Element) -> None:
    if element.kind == "append":
        connection.execute(UPSERT, (element.key, str(element.values[0])))
        return
    found = connection.execute("SELECT v FROM lists WHERE k = %s", (element.key,)).fetchone()
    element.values = _numbers("" if found is None else str(found[0]))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def prepare(connection: Connection) -> None:
    """The table."""
    connection.execute("CREATE TABLE IF NOT EXISTS lists (k int PRIMARY KEY, v text NOT NULL)")


def wrong(appenders: Sequence[Appender], connection: Connection) -> list[str]:
    """What is wrong with all that they were told, now that they have stopped."""
    history = [one for appender in appenders for one in appender.transactions]
    final: dict[int, list[int]] = {e.key: [] for one in history for e in one.elements}
    for key, text in connection.execute("SELECT k, v FROM lists"):
        final[int(str(key))] = _numbers(str(text))
    return wrong_lists(history, final)
