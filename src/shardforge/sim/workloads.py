"""What the clients of a simulated cluster do, and what must be true of what they saw.

A workload makes its tables, takes one step of one client at a time, and judges at the end, when every fault is healed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from shardforge.errors import QueryError
from shardforge.sim.checkers import (
    Element,
    Operation,
    Transaction,
    linearizable,
    wrong_lists,
)
from shardforge.sim.clients import Client, rows_of
from shardforge.sim.followed import Followed
from shardforge.sql.session.session import Session

KEYS = 4
ACCOUNTS = 4
OPENING_BALANCE = 100
WATCHED_US = 300_000


class Workload(Protocol):
    """One kind of use."""

    async def prepare(self, session: Session) -> None:
        """Make the tables. May be repeated after a failure."""
        ...

    async def step(self, client: Client) -> None:
        """One operation of one client."""
        ...

    async def judge(self, session: Session) -> list[str]:
        """What is wrong, now that everything is over."""
        ...


class Register:
    """Single rows that are written and read: linearizable, whatever happens."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._values = 0

    async def prepare(self, session: Session) -> None:
        """A table of registers."""
        await session.execute("CREATE TABLE IF NOT EXISTS register (k int PRIMARY KEY, v int)")

    async def step(self, client: Client) -> None:
        """Write one, or read one."""
        key = client.random.randrange(KEYS)
        if client.random.random() < 0.5:
            self._values += 1
            operation = Operation("write", key, self._values, client.rank())
            sql = "INSERT INTO register VALUES ($1::int, $2::int) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
            params: tuple[int, ...] = (key, self._values)
        else:
            operation = Operation("read", key, None, client.rank())
            sql, params = "SELECT v FROM register WHERE k = $1::int", (key,)
        self.operations.append(operation)
        answer = await client.attempt(lambda session: rows_of(session, sql, *params))
        operation.ended, operation.outcome = client.rank(), answer.outcome
        if operation.kind == "read" and answer.value:
            operation.value = answer.value[0][0]

    async def judge(self, session: Session) -> list[str]:
        """Each register by itself, with what it holds at the end."""
        final = dict(await rows_of(session, "SELECT k, v FROM register"))
        wrong = []
        last = max((o.began for o in self.operations), default=0) + len(self.operations)
        for key in range(KEYS):
            mine = [o for o in self.operations if o.key == key]
            mine.append(Operation("read", key, final.get(key), last + 1, last + 2, "ok"))
            if not linearizable(mine):
                wrong.append(f"register {key} is not linearizable")
        return wrong


class Append:
    """Serializable transactions that read lists and append to them: no cycle, and in the order of real time."""

    def __init__(self) -> None:
        self.transactions: list[Transaction] = []
        self._values = 0

    async def prepare(self, session: Session) -> None:
        """A table of lists, all of them there from the start."""
        await session.execute(
            "CREATE TABLE IF NOT EXISTS lists (k int PRIMARY KEY, v text NOT NULL)"
        )
        await session.execute(
            f"INSERT INTO lists SELECT k, '' FROM generate_series(0, {KEYS - 1}) k ON CONFLICT DO NOTHING"
        )

    async def step(self, client: Client) -> None:
        """One to three reads and appends."""
        transaction = Transaction(began=client.rank())
        for _ in range(client.random.randint(1, 3)):
            key = client.random.randrange(KEYS)
            if client.random.random() < 0.5:
                self._values += 1
                transaction.elements.append(Element("append", key, [self._values]))
            else:
                transaction.elements.append(Element("read", key, []))
        self.transactions.append(transaction)
        answer = await client.attempt(lambda session: self._carry_out(session, transaction))
        transaction.ended, transaction.outcome = client.rank(), answer.outcome

    async def _carry_out(self, session: Session, transaction: Transaction) -> None:
        await session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        for element in transaction.elements:
            if element.kind == "append":
                await session.execute(
                    "UPDATE lists SET v = v || ',' || $1::text WHERE k = $2::int",
                    (str(element.values[0]), element.key),
                )
            else:
                [(text,)] = await rows_of(
                    session, "SELECT v FROM lists WHERE k = $1::int", element.key
                )
                element.values = _numbers(text)
        await session.execute("COMMIT")

    async def judge(self, session: Session) -> list[str]:
        """Lists as they are at the end give the order of the appends."""
        final = {k: _numbers(v) for k, v in await rows_of(session, "SELECT k, v FROM lists")}
        return wrong_lists(self.transactions, final)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


class Bank:
    """Transfers at READ COMMITTED, and totals that never change, also as nodes without a majority read them."""

    def __init__(self) -> None:
        self.totals: list[int] = []

    async def prepare(self, session: Session) -> None:
        """Accounts with an opening balance."""
        await session.execute(
            "CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance int NOT NULL)"
        )
        await session.execute(
            f"INSERT INTO accounts SELECT id, {OPENING_BALANCE} FROM generate_series(1, {ACCOUNTS}) id"
            " ON CONFLICT DO NOTHING"
        )

    async def step(self, client: Client) -> None:
        """A transfer, or a total."""
        chance = client.random.random()
        if chance < 0.6:
            source, target = client.random.sample(range(1, ACCOUNTS + 1), 2)
            await client.attempt(lambda s: self._transfer(s, source, target))
            return
        standby = chance > 0.95
        answer = await client.attempt(
            lambda s: self._total(s, standby), standby=standby, seconds=0.5 if standby else 3.0
        )
        if answer.value is not None:
            self.totals.append(answer.value)

    async def _transfer(self, session: Session, source: int, target: int) -> None:
        update = "UPDATE accounts SET balance = balance + $1::int WHERE id = $2::int"
        await session.execute("BEGIN")
        await session.execute(update, (-1, source))
        await session.execute(update, (1, target))
        await session.execute("COMMIT")

    async def _total(self, session: Session, standby: bool) -> int | None:
        if standby:
            await session.execute("SET shardforge.consistency_level = 'eventual'")
        try:
            [(total,)] = await rows_of(session, "SELECT sum(balance) FROM accounts")
        except QueryError as error:
            if standby and error.sqlstate == "42P01":
                return None  # a node that was cut off before it heard of the table
            raise
        return (
            None if total is None else int(total)
        )  # the past may reach back to before the opening

    async def judge(self, session: Session) -> list[str]:
        """Every total that anybody saw, and the last one."""
        [(last,)] = await rows_of(session, "SELECT sum(balance) FROM accounts")
        expected = ACCOUNTS * OPENING_BALANCE
        return [
            f"somebody saw {total} in all accounts, not {expected}"
            for total in [*self.totals, int(last)]
            if total != expected
        ]


class FedBank(Bank):
    """The bank, watched through change feeds: what they tell is whole transactions, in order, and all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    async def step(self, client: Client) -> None:
        """A step of the bank, or a feed for a while."""
        if client.random.random() < 0.15:
            await client.attempt(self._watch)
        else:
            await super().step(client)

    async def _watch(self, session: Session) -> None:
        [(now,)] = await rows_of(
            session, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        )
        options = f"CHANGEFEED, INITIAL_SCAN, RESOLVED 0.05, UNTIL '{now + WATCHED_US}'"
        prepared = session.prepare(f"COPY accounts TO STDOUT ({options})")
        assert prepared is not None, "a statement"
        stream = (await session.run(prepared)).copy_out
        assert stream is not None, "a COPY to the client"
        balances: dict[int, int] = {}
        resolved = 0
        async for piece in stream.pieces():
            for line in piece.decode().splitlines():
                timestamp, event, before, after = line.split("\t")
                if event == "resolved":
                    resolved = int(timestamp)
                    self._check(sum(balances.values()), "the sum at a resolved timestamp")
                    continue
                row = json.loads(after)
                if event == "update":
                    if int(timestamp) <= resolved:
                        self.wrong.append(f"{line} came after {resolved} was resolved")
                    if json.loads(before)["balance"] != balances[row["id"]]:
                        self.wrong.append(f"{line} does not follow {balances}")
                balances[row["id"]] = row["balance"]
        await session.finish_implicit()

    def _check(self, total: int, what: str) -> None:
        if total != ACCOUNTS * OPENING_BALANCE:
            self.wrong.append(f"{what} was {total}")

    async def judge(self, session: Session) -> list[str]:
        """As the bank, and what the watchers saw."""
        return [*self.wrong, *await super().judge(session)]


class Counter:
    """Increments at READ COMMITTED: each acknowledged one counts once, and no read goes back in time."""

    def __init__(self) -> None:
        self.increments: list[Operation] = []
        self.reads: list[Operation] = []

    async def prepare(self, session: Session) -> None:
        """One counter at zero."""
        await session.execute("CREATE TABLE IF NOT EXISTS counter (id int PRIMARY KEY, n int)")
        await session.execute("INSERT INTO counter VALUES (1, 0) ON CONFLICT DO NOTHING")

    async def step(self, client: Client) -> None:
        """Add one, or look."""
        if client.random.random() < 0.7:
            operation = Operation("write", 1, 1, client.rank())
            self.increments.append(operation)
            sql = "UPDATE counter SET n = n + 1 WHERE id = 1"
        else:
            operation = Operation("read", 1, None, client.rank())
            self.reads.append(operation)
            sql = "SELECT n FROM counter WHERE id = 1"
        answer = await client.attempt(lambda session: rows_of(session, sql))
        operation.ended, operation.outcome = client.rank(), answer.outcome
        if operation.kind == "read" and answer.value:
            operation.value = answer.value[0][0]

    async def judge(self, session: Session) -> list[str]:
        """Bounds for every read, and for the end."""
        [(last,)] = await rows_of(session, "SELECT n FROM counter WHERE id = 1")
        after = max((o.ended for o in [*self.increments, *self.reads]), default=0.0) + 1
        final = Operation("read", 1, last, after, after, "ok")
        wrong = []
        for read in [*(o for o in self.reads if o.outcome == "ok"), final]:
            least = sum(o.outcome == "ok" and o.ended < read.began for o in self.increments)
            most = sum(o.outcome != "refused" and o.began < read.ended for o in self.increments)
            if not least <= read.value <= most:
                wrong.append(f"a read saw {read.value}, which is not from {least} to {most}")
        return wrong


class Once:
    """Increments that name a commit key and are repeated until acknowledged, and beyond: each key counts once."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def prepare(self, session: Session) -> None:
        """Counters at zero, on several shards."""
        await session.execute("CREATE TABLE IF NOT EXISTS once (id int PRIMARY KEY, n int)")
        await session.execute(
            f"INSERT INTO once SELECT id, 0 FROM generate_series(0, {KEYS - 1}) id ON CONFLICT DO NOTHING"
        )

    async def step(self, client: Client) -> None:
        """A new key, tried by one or by two at a time; or an old one once more."""
        if self.keys and client.random.random() < 0.2:
            number = client.random.randrange(len(self.keys))
        else:
            number = len(self.keys)
            self.keys.append(f"key {number}")
        for _ in range(client.random.randint(1, 4)):
            attempts = [
                client.attempt(lambda s: self._add(s, number))
                for _ in range(client.random.randint(1, 2))
            ]
            answers = await asyncio.gather(*attempts)
            if any(answer.ok for answer in answers):
                return

    async def _add(self, session: Session, number: int) -> None:
        isolation = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")[number % 3]
        await session.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        early = f"SET LOCAL shardforge.commit_key = '{self.keys[number]}'"
        late = f"SELECT set_config('shardforge.commit_key', '{self.keys[number]}', true)"
        if number % 2:
            await session.execute(early)
        for counter in sorted({number % KEYS, number * 7 % 5 % KEYS}):
            await session.execute("UPDATE once SET n = n + 1 WHERE id = $1::int", (counter,))
        if not number % 2:
            await session.execute(late)
        await session.execute("COMMIT")

    async def judge(self, session: Session) -> list[str]:
        """Repeat every key, which settles the unknown ones; then each counts once."""
        expected = dict.fromkeys(range(KEYS), 0)
        for number in range(len(self.keys)):
            await self._add(session, number)
            for counter in {number % KEYS, number * 7 % 5 % KEYS}:
                expected[counter] += 1
        found = dict(await rows_of(session, "SELECT id, n FROM once"))
        return [
            f"counter {counter} is {found.get(counter)}, with {number} keys"
            for counter, number in expected.items()
            if found.get(counter) != number
        ]


class DdlBesideDml:
    """Indexes, columns and tables come and go while rows are written: none is lost, and every index tells the truth."""

    def __init__(self) -> None:
        self.inserts: list[Operation] = []
        self.wrong: list[str] = []
        self._columns = 0

    async def prepare(self, session: Session) -> None:
        """A table of items."""
        await session.execute("CREATE TABLE IF NOT EXISTS items (id int PRIMARY KEY, n int)")

    async def step(self, client: Client) -> None:
        """The first client changes the schema, the others use it."""
        chance = client.random.random()
        if client.number == 0:
            await client.attempt(self._changed(client.random.choice(SCHEMA_CHANGES)))
        elif chance < 0.6:
            operation = Operation("write", 0, len(self.inserts), client.rank())
            self.inserts.append(operation)
            params = (operation.value, operation.value % 5)
            answer = await client.attempt(
                lambda s: rows_of(s, "INSERT INTO items (id, n) VALUES ($1::int, $2::int)", *params)
            )
            operation.ended, operation.outcome = client.rank(), answer.outcome
        elif chance < 0.8:
            await client.attempt(
                lambda s: rows_of(s, "UPDATE items SET n = (n + 1) % 5 WHERE id % 7 = 3")
            )
        else:
            found = await client.attempt(self._both_ways)
            self.wrong += found.value or []

    def _changed(self, sql: str) -> Callable[[Session], Awaitable[object]]:
        self._columns += 1
        text = sql.replace("#", str(self._columns))
        return lambda session: rows_of(session, text)

    async def _both_ways(self, session: Session) -> list[str]:
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        wrong = []
        for n in range(5):
            counts = [
                (await rows_of(session, f"SELECT count(*) FROM items WHERE {condition} = {n}"))[0][
                    0
                ]
                for condition in ("n", "n + 0")
            ]
            if counts[0] != counts[1]:
                wrong.append(f"n = {n}: {counts[0]} rows by the index, {counts[1]} in the table")
        await session.execute("COMMIT")
        return wrong

    async def judge(self, session: Session) -> list[str]:
        """Whose insert was acknowledged is there, whose was refused is not, and indexes agree with the table."""
        there = {i for (i,) in await rows_of(session, "SELECT id FROM items")}
        wrong = [*self.wrong, *await self._both_ways(session)]
        for operation in self.inserts:
            if operation.outcome == "ok" and operation.value not in there:
                wrong.append(f"item {operation.value} was acknowledged and is lost")
            if operation.outcome == "refused" and operation.value in there:
                wrong.append(f"item {operation.value} was refused and is there")
        return wrong


SCHEMA_CHANGES: Sequence[str] = (
    "CREATE INDEX IF NOT EXISTS items_n ON items (n)",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS items_n ON items (n)",
    "DROP INDEX IF EXISTS items_n",
    "ALTER TABLE items ADD COLUMN IF NOT EXISTS extra int DEFAULT #",
    "ALTER TABLE items DROP COLUMN IF EXISTS extra",
    "CREATE TABLE IF NOT EXISTS other AS SELECT # AS a",
    "DROP TABLE IF EXISTS other",
)
"""`#` is a number that is used once."""

WORKLOADS: dict[str, Callable[[], Workload]] = {
    "register": Register,
    "append": Append,
    "bank": Bank,
    "fed-bank": FedBank,
    "counter": Counter,
    "once": Once,
    "ddl": DdlBesideDml,
    "followed": Followed,
}
"""The workloads by the names that --workload takes."""
