"""A client that works without a pause while a cluster is disturbed, and what it was told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import psycopg

RETRIABLE = {"40001", "40003", "40P01", "57P01", "57P03", "no answer"}
"""What a client may be told; "no answer": the connection broke, or could not be made."""

Connection = psycopg.Connection[tuple[object, ...]]


@dataclass
class Client:
    """One thread."""

    number: int
    dsn: str
    stop: threading.Event
    told: Counter[str] = field(default_factory=Counter)
    """SQLSTATEs, and how often each came."""
    wrong: list[str] = field(default_factory=list)
    last: float = 0.0
    """When the last statement succeeded, by time.monotonic()."""
    longest: float = 0.0
    """The longest time between two that did."""

    def run(self) -> None:
        """Work until told to stop, over a new connection whenever the last one failed."""
        while not self.stop.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    while not self.stop.is_set():
                        self.step(connection)
                        now = time.monotonic()
                        self.longest = max(self.longest, now - (self.last or now))
                        self.last = now
            except psycopg.Error as error:
                state = error.sqlstate or (
                    "no answer" if isinstance(error, psycopg.OperationalError) else repr(error)
                )
                self.told[state] += 1
                if state not in RETRIABLE:
                    self.wrong.append(f"{state}: {error}")
                time.sleep(0.02)

    def step(self, connection: Connection) -> None:
        """One statement."""
        raise NotImplementedError
