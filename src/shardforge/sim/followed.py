"""Readers on followers beside writers and DDL: what they see is whole, never goes back, and is as new as was promised.

Every transfer between accounts moves a counter on in the same transaction, so a reader's state has a number. A table of
few rows is replaced again and again, each time in one transaction: it never has more or fewer of them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left

from shardforge.errors import QueryError
from shardforge.sim.clients import Client, rows_of
from shardforge.sim.cluster import DRIFT_MAX, MAX_STALENESS_MS
from shardforge.sql.session.session import Session

ACCOUNTS = 6
OPENING_BALANCE = 100
REPLACED_ROWS = 5
READS = 4
PAUSE_SECONDS = (0.0, 0.6)
LONG_PAUSE_SECONDS = (0.0, 4.0)
"""Longer than versions are kept."""
STALE_SECONDS = MAX_STALENESS_MS / 1000 * (1 + 2 * DRIFT_MAX)

_STATE = (
    "SELECT (SELECT n FROM moves WHERE id = 1), (SELECT sum(balance) FROM followed_accounts),"
    " (SELECT count(*) FROM replaced)"
)


class Followed:
    """The bank, read on followers."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._acknowledged: list[tuple[float, int]] = []
        """When it was known that the counter had come so far, both growing."""

    async def prepare(self, session: Session) -> None:
        """Accounts, the counter, and the table that is replaced."""
        for table in (
            "followed_accounts (id int PRIMARY KEY, balance int NOT NULL)",
            "moves (id int PRIMARY KEY, n int NOT NULL)",
            "replaced (id int PRIMARY KEY)",
        ):
            await session.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        await session.execute(
            f"INSERT INTO followed_accounts SELECT id, {OPENING_BALANCE} FROM generate_series(1, {ACCOUNTS}) id"
            " ON CONFLICT DO NOTHING"
        )
        await session.execute("INSERT INTO moves VALUES (1, 0) ON CONFLICT DO NOTHING")
        await session.execute(
            f"INSERT INTO replaced SELECT generate_series(1, {REPLACED_ROWS}) ON CONFLICT DO NOTHING"
        )

    async def step(self, client: Client) -> None:
        """A transfer, a table replaced, or reads on a follower."""
        chance = client.random.random()
        if chance < 0.4:
            await self._move(client)
        elif chance < 0.5:
            if client.number == 0:  # whoever waits for a table that is dropped finds it gone
                await client.attempt(self._replace)
        elif chance < 0.9:
            level = client.random.choice(("bounded", "eventual"))
            await client.follow(lambda s: self._watch(s, client, level), level)
        else:
            await client.follow(lambda s: self._watch_long(s, client), "bounded", seconds=15)

    async def _move(self, client: Client) -> None:
        source, target = client.random.sample(range(1, ACCOUNTS + 1), 2)
        answer = await client.attempt(lambda s: self._transfer(s, source, target))
        if answer.value is not None:
            reached = max(answer.value, self._acknowledged[-1][1] if self._acknowledged else 0)
            self._acknowledged.append((_now(), reached))

    async def _transfer(self, session: Session, source: int, target: int) -> int:
        update = "UPDATE followed_accounts SET balance = balance + $1::int WHERE id = $2::int"
        await session.execute("BEGIN")
        await session.execute(update, (-1, source))
        await session.execute(update, (1, target))
        [(number,)] = await rows_of(session, "UPDATE moves SET n = n + 1 WHERE id = 1 RETURNING n")
        await session.execute("COMMIT")
        return int(number)

    async def _replace(self, session: Session) -> None:
        await session.execute("BEGIN")
        if session.instance.random.random() < 0.5:
            await session.execute("TRUNCATE replaced")
        else:
            await session.execute("DROP TABLE replaced")
            await session.execute("CREATE TABLE replaced (id int PRIMARY KEY, extra int)")
        await session.execute(
            f"INSERT INTO replaced (id) SELECT generate_series(1, {REPLACED_ROWS})"
        )
        await session.execute("COMMIT")

    # ---- what readers see ------------------------------------------------------------------------

    async def _watch(self, session: Session, client: Client, level: str) -> bool:
        """Several statements of one session, each at a timestamp of its own."""
        seen = 0
        for _ in range(READS):
            began = _now()
            number = await self._look(session)
            if number < seen:
                self.wrong.append(f"a session saw {seen} moves, and then {number}")
            seen = number
            due = self._due(began - STALE_SECONDS)
            if level == "bounded" and number < due:
                self.wrong.append(
                    f"a bounded reader saw {number} moves at {began}: {due} were older than it accepts"
                )
            await asyncio.sleep(client.random.uniform(*PAUSE_SECONDS))
        return True

    async def _watch_long(self, session: Session, client: Client) -> bool:
        """One state, looked at for longer than old versions are kept."""
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        first = await self._look(session)
        if not first:
            return True
        for _ in range(READS):
            await asyncio.sleep(client.random.uniform(*LONG_PAUSE_SECONDS))
            again = await self._look(session)
            if again != first:
                self.wrong.append(f"a snapshot of {first} moves had {again} later")
        await session.execute("COMMIT")
        return True

    async def _look(self, session: Session) -> int:
        try:
            [(number, total, replaced)] = await rows_of(session, _STATE)
        except QueryError as error:
            if error.sqlstate != "42P01":
                raise
            return 0  # before the beginning
        expected = (ACCOUNTS * OPENING_BALANCE, REPLACED_ROWS)
        if number is None:
            return 0
        if number and (total, replaced) != expected:
            self.wrong.append(f"after {number} moves: {(total, replaced)}, not {expected}")
        return int(number)

    def _due(self, moment: float) -> int:
        """How far the counter had come for certain at a moment."""
        at = bisect_left(self._acknowledged, (moment, 0))
        return self._acknowledged[at - 1][1] if at else 0

    async def judge(self, session: Session) -> list[str]:
        """What readers saw, and the last state."""
        await self._look(session)
        return self.wrong


def _now() -> float:
    return asyncio.get_running_loop().time()
