"""Readers on followers beside writers and DDL: what they see is whole, never goes back, and is as new as was promised.

Every transfer between accounts appends its name to a list in the same transaction, so a reader's state tells how far
it is (`pasts.py` judges that). A table of few rows is replaced again and again, each time in one transaction: it
never has more or fewer of them.
"""

from __future__ import annotations

import asyncio
from itertools import count

from shardforge.errors import QueryError
from shardforge.sim.clients import Client, rows_of
from shardforge.sim.cluster import DRIFT_MAX, MAX_STALENESS_MS
from shardforge.sim.pasts import Look, Move, wrong_pasts
from shardforge.sql.session.session import Session

ACCOUNTS = 6
OPENING_BALANCE = 100
REPLACED_ROWS = 5
READS = 4
PAUSE_SECONDS = (0.0, 0.6)
LONG_PAUSE_SECONDS = (0.0, 4.0)
"""Longer than versions are kept."""
STALE_SECONDS = MAX_STALENESS_MS / 1000 * (1 + 2 * DRIFT_MAX)

_AGES = {"strong": 0.0, "bounded": STALE_SECONDS, "eventual": None}
_STATE = (
    "SELECT (SELECT names FROM moves WHERE id = 1), (SELECT sum(balance) FROM followed_accounts),"
    " (SELECT count(*) FROM replaced)"
)


class Followed:
    """The bank, read on followers."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._acknowledged: list[Move] = []
        self._looks: list[Look] = []
        self._given = count(1)

    async def prepare(self, session: Session) -> None:
        """Accounts, the list, and the table that is replaced."""
        for table in (
            "followed_accounts (id int PRIMARY KEY, balance int NOT NULL)",
            "moves (id int PRIMARY KEY, names text NOT NULL)",
            "replaced (id int PRIMARY KEY)",
        ):
            await session.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        await session.execute(
            f"INSERT INTO followed_accounts SELECT id, {OPENING_BALANCE} FROM generate_series(1, {ACCOUNTS}) id"
            " ON CONFLICT DO NOTHING"
        )
        await session.execute("INSERT INTO moves VALUES (1, '') ON CONFLICT DO NOTHING")
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
        name = next(self._given)
        answer = await client.attempt(lambda s: self._transfer(s, source, target, name))
        if answer.value is not None:
            self._acknowledged.append(Move(name, answer.value, _now()))

    async def _transfer(self, session: Session, source: int, target: int, name: int) -> int:
        update = "UPDATE followed_accounts SET balance = balance + $1::int WHERE id = $2::int"
        await session.execute("BEGIN")
        await session.execute(update, (-1, source))
        await session.execute(update, (1, target))
        began = _now()
        [(text,)] = await rows_of(
            session,
            "UPDATE moves SET names = names || ',' || $1::text WHERE id = 1 RETURNING names",
            str(name),
        )
        names = _names(text)
        await session.execute("COMMIT")
        # What a lost leader shows is believed by nobody before it is committed.
        self._looks.append(Look(names[:-1], began, _AGES["strong"]))
        return len(names)

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
            number = len(await self._look(session, level))
            if number < seen:
                self.wrong.append(f"a session saw {seen} moves, and then {number}")
            seen = number
            await asyncio.sleep(client.random.uniform(*PAUSE_SECONDS))
        return True

    async def _watch_long(self, session: Session, client: Client) -> bool:
        """One state, looked at for longer than old versions are kept."""
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        first = await self._look(session, "bounded")
        if not first:
            return True
        for _ in range(READS):
            await asyncio.sleep(client.random.uniform(*LONG_PAUSE_SECONDS))
            again = await self._look(session, "eventual")
            if again != first:
                self.wrong.append(f"a snapshot of {first} had {again} later")
        await session.execute("COMMIT")
        return True

    async def _look(self, session: Session, level: str) -> list[int]:
        began = _now()
        try:
            [(text, total, replaced)] = await rows_of(session, _STATE)
        except QueryError as error:
            if error.sqlstate != "42P01":
                raise
            text, total, replaced = None, None, None  # before the beginning
        names = _names(text or "")
        if names and (total, replaced) != (ACCOUNTS * OPENING_BALANCE, REPLACED_ROWS):
            self.wrong.append(f"after {len(names)} moves: {total} in all, and {replaced} rows")
        self._looks.append(Look(names, began, _AGES[level]))
        return names

    async def judge(self, session: Session) -> list[str]:
        """What readers saw, and the last state."""
        kept = await self._look(session, "strong")
        may_lose = session.instance.config.replication.async_replication
        return self.wrong + wrong_pasts(self._acknowledged, self._looks, kept, may_lose=may_lose)


def _names(text: str) -> list[int]:
    return [int(name) for name in text.split(",") if name]


def _now() -> float:
    return asyncio.get_running_loop().time()
