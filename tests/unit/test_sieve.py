"""Sieves by example: which conditions travel, what becomes of values, whose rows pass, and where a page ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from shardforge.ids import ShardId, Timestamp
from shardforge.shard.remote import service
from shardforge.shard.remote.calls import Head, Scanned, ScanSpans
from shardforge.shard.remote.service import ShardService, Sieves
from shardforge.sql.functions.registry import implementation
from shardforge.sql.pgdata import procs
from shardforge.sql.sieve import terms
from shardforge.sql.sieve.pushable import PUSHABLE, is_pushable, is_quick_pattern
from shardforge.sql.sieve.reading import read_sieve
from shardforge.storage import mvcc
from shardforge.storage.memory import MemoryEngine
from shardforge.txn.coordinator import Isolation
from shardforge.txn.sieve import Sieve
from tests.inprocess import run, running_node, session_of
from tests.sieves import Scan

TABLE = (
    "CREATE TABLE t (id int PRIMARY KEY, a int, s text, d date, ts timestamptz, j json, ai int[])"
)

ACTUAL = {2277: 1007, 2283: 23, 5078: 1007}
"""Polymorphic types, and some to stand for them: anyarray, anyelement, anycompatiblearray."""


def test_what_is_on_the_list_is_immutable_and_needs_nothing_else() -> None:
    listed = [proc for proc in procs() if is_pushable(proc.oid)]
    assert len(listed) > 400
    assert {proc.prosrc for proc in listed} <= PUSHABLE
    for proc in listed:
        assert proc.provolatile == "i", proc
        types = tuple([ACTUAL.get(oid, oid) for oid in proc.proargtypes])
        found = implementation(proc, types, ACTUAL.get(proc.prorettype, proc.prorettype))
        assert found is not None, proc
        assert not found.needs_context, proc


@pytest.mark.parametrize(
    ("pattern", "quick"),
    [("a%", True), ("%a_b%", True), ("", True), ("%", True), ("a\\%b%", True), ("a%b", False), ("%a%b%", False),
     ("%a\\\\%b", False), (b"%a", True), (b"a%b", False)],
)  # fmt: skip
def test_a_pattern_that_may_take_long_stays(pattern: str | bytes, quick: bool) -> None:
    assert is_quick_pattern(pattern) is quick


WHOLE = [
    "a = 5", "a = 2 + 3", "a + 1 > abs(a)", "s LIKE 'x%'", "s IS NULL OR NOT a = 1", "a IN (1, 2, 3)",
    "a = ANY('{1,2}')",
    "a BETWEEN 1 AND 2", "(a, s) > (1, 'x')", "coalesce(a, 0) = 0", "a IS DISTINCT FROM 1", "(a = 1) IS NOT TRUE",
    "d > current_date", "ts < now()", "ts > '2024-01-01'", "s = current_setting('server_version')", "ai && '{1}'",
    "a = 1 AND s = 'x' AND d IS NULL", "j ->> 'k' = 'v'", "a / 0 = 1 OR a = 2",
]  # fmt: skip
NOTHING = [
    "s ~ 'x'", "s LIKE 'a%b'", "s LIKE s", "a = 1 / 0", "a::text = '5'", "ts::date = '2024-01-01'", "random() < 0.5",
    "a = random()", "repeat(s, 3) = 'xxx'", "CASE a WHEN 1 THEN true END", "tableoid = 7", "s ~ 'x' AND a = 1",
    "s LIKE ANY (ARRAY['x%', 'y%'])",
]  # fmt: skip


def term_kinds(sieve: bytes) -> list[str]:
    return [type(term).__name__ for term in terms.decode(sieve).terms]


async def _choices() -> None:
    async with running_node() as node:
        session = session_of(node)
        await run(session, TABLE)
        for condition in WHOLE:
            scan = Scan(session, f"SELECT id FROM t WHERE {condition}")
            assert scan.sieve(), condition
        for condition in NOTHING:
            scan = Scan(session, f"SELECT id FROM t WHERE {condition}")
            assert scan.node.condition is not None, condition
            assert not scan.sieve(), condition
        first = Scan(session, "SELECT id FROM t WHERE a = 1 AND s ~ 'x' AND d IS NULL").sieve()
        assert first == Scan(session, "SELECT id FROM t WHERE a = 1").sieve(), (
            "up to what cannot be"
        )
        given = Scan(session, "SELECT id FROM t WHERE a = $1 AND s = $2", (5, "x")).sieve()
        assert given == Scan(session, "SELECT id FROM t WHERE a = 5 AND s = 'x'").sieve()
        listed = Scan(session, "SELECT id FROM t WHERE a = ANY($1::int[])", (None,))
        assert term_kinds(listed.sieve()) == ["Column", "Value", "AnyOf"], "no list: NULL"
        many = ", ".join(map(str, range(5_000)))
        assert not Scan(session, f"SELECT id FROM t WHERE a IN ({many})").sieve(), "too many"
        deep = "".join(["NOT (" * 80, "a = 1 IS TRUE", ")" * 80])
        assert not Scan(session, f"SELECT id FROM t WHERE {deep} IS NULL").sieve(), "too deep"
        long = "x" * terms.SIEVE_BYTES_MAX
        assert not Scan(session, "SELECT id FROM t WHERE s = $1", (long,)).sieve(), "too large"
        unheard = Scan(session, "SELECT id FROM t WHERE s = $1", ("\ud800",))
        assert not unheard.sieve(), "half a surrogate pair is not stored"


def test_which_conditions_travel() -> None:
    asyncio.run(_choices())


async def _colocated() -> None:
    async with running_node() as node:
        session = session_of(node)
        for name in ("orders", "items"):
            columns = "(tenant int, id int, PRIMARY KEY (tenant, id))"
            await run(session, f"CREATE TABLE {name} {columns} WITH (shard_key = 'tenant')")
            await run(session, f"INSERT INTO {name} SELECT g / 10, g FROM generate_series(1, 40) g")
        scan = Scan(session, "SELECT id FROM items")
        place = scan.operator.access.space.place()
        assert place is not None, "tables share its span"
        sieve = scan.operator.sieve(scan.run)  # type: ignore[arg-type]
        assert sieve is not None, "for what is not the table's"
        passes = read_sieve(sieve.data)
        transaction = session.instance.store.coordinator.begin(Isolation.READ_COMMITTED)
        kept = [
            key
            async for chunk in transaction.scan(*scan.operator.access.space.whole()[0])
            for key, value in chunk
            if passes(key, value)
        ]
        await transaction.rollback()
        assert len(kept) == 40


def test_rows_of_tables_that_share_a_span_are_told_apart() -> None:
    asyncio.run(_colocated())


# ---- a page ----------------------------------------------------------------------------------------

ROWS = 10_000
TENURE = 9
SPANS = [(b"h000000", b"h004000"), (b"h004000", b"i")]


def served(sieves: Sieves) -> ShardService:
    """A service of one replica, whose rows have the numbers 0 to 999 over and over."""
    engine = MemoryEngine()
    engine.write([mvcc.put_version(b"h%06d" % n, 5, b"%d" % (n % 1000)) for n in range(ROWS)])
    replica = SimpleNamespace(
        engine=engine, failure=None, state=SimpleNamespace(tenure=TENURE, index=3), descriptor=SimpleNamespace(epoch=1),
    )  # fmt: skip
    host = SimpleNamespace(find=lambda _: replica)
    network = SimpleNamespace(on_call=lambda *_: None)
    return ShardService(host, network, None, sieves)  # type: ignore[arg-type]


async def pages(sieves: Sieves, *, reverse: bool, rows_max: int = 4_096) -> list[Scanned]:
    found, rest = [], list(reversed(SPANS) if reverse else SPANS)
    serving = served(sieves)
    while rest:
        call = ScanSpans(
            Head(ShardId(1), TENURE, 1, 3), rest, Timestamp(9), reverse, rows_max, b"sieve"
        )
        page = await serving.answer(call)
        assert isinstance(page, Scanned)
        found.append(page)
        if page.position < 0:
            break
        start, end = rest[page.position]
        rest = rest[page.position :]
        rest[0] = (start, page.bound) if reverse else (page.bound + b"\x00", end)
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_a_page_ends_with_what_is_read_for_it(reverse: bool) -> None:
    read: list[bytes] = []

    def rare(key: bytes, value: bytes) -> bool:
        read.append(key)
        return value == b"7"

    found = asyncio.run(pages(lambda _: rare, reverse=reverse))
    rows = [key for page in found for key, _, _ in page.rows]
    expected = [b"h%06d" % n for n in range(7, ROWS, 1000)]
    assert rows == (expected[::-1] if reverse else expected)
    assert len(read) == ROWS, "each once"
    assert len(found) == -(-ROWS // service.SIFTED_ROWS_MAX)
    assert not asyncio.run(pages(lambda _: lambda key, value: False, reverse=reverse))[0].rows


def test_only_rows_that_pass_count() -> None:
    found = asyncio.run(
        pages(lambda _: lambda key, value: value == b"7", reverse=False, rows_max=2)
    )
    assert sum(len(page.rows) for page in found) == ROWS // 1000
    assert max(len(page.rows) for page in found) == 2


def test_bytes_of_rows_that_do_not_pass_end_a_page_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SIFTED_BYTES_MAX", 1_000)
    found = asyncio.run(pages(lambda _: lambda key, value: False, reverse=False))
    assert ROWS * 8 // 1_000 < len(found) < ROWS * 10 // 1_000 + 2


def test_where_a_sieve_cannot_be_read_all_rows_are_sent() -> None:
    found = asyncio.run(pages(read_sieve, reverse=False))
    assert sum(len(page.rows) for page in found) == ROWS


def test_a_sieve_is_made_once_and_only_if_it_is_asked_for() -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"x")
        return b"x"

    sieve = Sieve(make, 10)
    assert not made
    assert sieve.first_page(64) == 10
    assert sieve.first_page(4) == 4
    assert sieve.data == b"x"
    assert made == [b"x"]
    assert Sieve(lambda: b"", 10).first_page(64) == 64, "what is wanted is not all that comes"
    assert Sieve(lambda: b"x").first_page(64) == 64
