"""ALTER TABLE ... SET (shard_key, sharding): rows move, nothing else changes; errors are those of CREATE TABLE."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from shardforge.errors import DatabaseError
from shardforge.sql.catalog.descriptors import Sharding, Table
from shardforge.sql.session.session import Session
from tests.inprocess import MEMORY, run, running_node, session_of

ROWS = 300
_TABLE = """
CREATE TABLE t (tenant int, id int, note text UNIQUE, PRIMARY KEY (tenant, id));
CREATE INDEX t_id ON t (id);
INSERT INTO t SELECT g % 7, g, 'n' || g FROM generate_series(1, 300) g;
CREATE TABLE child (tenant int, id int, FOREIGN KEY (tenant, id) REFERENCES t);
INSERT INTO child SELECT tenant, id FROM t WHERE id <= 10;
CREATE TABLE bare (a int, b numeric, c jsonb);
INSERT INTO bare SELECT g, g, '{}' FROM generate_series(1, 50) g
"""


def play(scenario: Callable[[Session], Awaitable[None]]) -> None:
    sharding = replace(MEMORY.sharding, initial_shard_count=4)

    async def main() -> None:
        async with running_node(replace(MEMORY, sharding=sharding)) as node:
            session = session_of(node)
            for statement in _TABLE.split(";"):
                await run(session, statement)
            await asyncio.wait_for(scenario(session), 30)

    asyncio.run(main())


def table_of(session: Session, name: str) -> Table:
    return session.instance.catalog.current("shardforge").table("public", name, ())


async def whole(session: Session) -> None:
    """Every row is there by its key, by both indexes, by its reference, and can be written."""
    assert await run(session, "SELECT count(*), sum(id), count(DISTINCT note) FROM t") == [
        (ROWS, ROWS * (ROWS + 1) // 2, ROWS)
    ]
    assert await run(session, "SELECT id FROM t WHERE tenant = 3 AND id = 10") == [(10,)]
    assert await run(session, "SELECT tenant FROM t WHERE id = 12") == [(5,)]
    assert await run(session, "SELECT id FROM t WHERE note = 'n77'") == [(77,)]
    assert await run(session, "SELECT count(*) FROM t JOIN child USING (tenant, id)") == [(10,)]
    with pytest.raises(DatabaseError) as caught:
        await run(session, "INSERT INTO child VALUES (1, 2)")
    assert caught.value.sqlstate == "23503"
    with pytest.raises(DatabaseError) as caught:
        await run(session, "INSERT INTO t VALUES (3, 10, 'new')")
    assert caught.value.sqlstate == "23505"
    await run(session, "UPDATE t SET note = note || '!' WHERE id = 200")
    await run(session, "UPDATE t SET note = 'n200' WHERE id = 200")


def test_rows_move_to_where_the_options_say() -> None:
    async def scenario(session: Session) -> None:
        places = [
            ("SET (shard_key = 'tenant')", Sharding("colocated", (1,)), "shard_key=tenant"),
            ("SET (shard_key = 'tenant,id')", Sharding("colocated", (1, 2)), "shard_key=tenant,id"),
            ("SET (sharding = 'range')", Sharding("range"), "sharding=range"),
            ("SET (sharding = 'hash', fillfactor = 70)", Sharding("hash"), "sharding=hash"),
            ("SET (shard_key = 'id')", Sharding("colocated", (2,)), "shard_key=id"),
            ("RESET (shard_key)", Sharding("hash"), None),
        ]
        for command, sharding, option in places:
            before = table_of(session, "t").storage_id
            await run(session, f"ALTER TABLE t {command}")
            table = table_of(session, "t")
            assert table.sharding == sharding
            assert table.storage_id != before, "the rows moved"
            placing = [one for one in table.options if not one.startswith("fillfactor")]
            assert placing == ([] if option is None else [option])
            await whole(session)
        assert table_of(session, "t").options == ("fillfactor=70",)

    play(scenario)


def test_rows_stay_where_nothing_changes() -> None:
    async def scenario(session: Session) -> None:
        before = table_of(session, "t")
        for command in (
            "SET (sharding = 'hash')",
            "RESET (sharding)",
            "RESET (shard_key)",
            "SET (fillfactor = 80)",
        ):
            await run(session, f"ALTER TABLE t {command}")
            table = table_of(session, "t")
            assert (table.storage_id, table.sharding) == (before.storage_id, before.sharding)
        assert table_of(session, "t").options == ("fillfactor=80",)

    play(scenario)


def test_a_table_without_primary_key_may_have_any_shard_key() -> None:
    async def scenario(session: Session) -> None:
        await run(session, "ALTER TABLE bare SET (shard_key = 'a')")
        assert table_of(session, "bare").sharding == Sharding("colocated", (1,))
        assert await run(session, "SELECT count(*), sum(a) FROM bare") == [(50, 1275)]
        await run(session, "INSERT INTO bare SELECT * FROM bare")
        assert await run(session, "SELECT count(*) FROM bare WHERE a = 7") == [(2,)]

    play(scenario)


def test_what_is_rolled_back_moves_nothing() -> None:
    async def scenario(session: Session) -> None:
        before = table_of(session, "t")
        await run(session, "BEGIN")
        await run(session, "ALTER TABLE t SET (shard_key = 'tenant')")
        assert await run(session, "SELECT count(*) FROM t WHERE tenant = 3") == [(43,)]
        await run(session, "ROLLBACK")
        assert table_of(session, "t") == before
        await whole(session)

    play(scenario)


@pytest.mark.parametrize(
    ("statement", "sqlstate", "message"),
    [
        ("t SET (shard_key = 'note')", "42P16", 'shard_key column "note" must be part of the primary key'),
        ("t SET (shard_key = 'none')", "42703", 'column "none" named in shard_key does not exist'),
        ("t SET (shard_key = 'id, id')", "42701", "a column appears twice in shard_key"),
        ("t SET (shard_key = 'id', sharding = 'hash')", "22023", '"shard_key" and "sharding" cannot be given together'),
        ("t SET (sharding = 'round')", "22023", 'invalid value for enum option "sharding": round'),
        ("bare SET (shard_key = 'b')", "0A000", "a shard_key of type numeric is not supported"),
        ("bare SET (shard_key = 'c')", "0A000", ""),
    ],
)  # fmt: skip
def test_what_create_table_refuses_is_refused(statement: str, sqlstate: str, message: str) -> None:
    async def scenario(session: Session) -> None:
        before = table_of(session, "t"), table_of(session, "bare")
        with pytest.raises(DatabaseError) as caught:
            await run(session, f"ALTER TABLE {statement}")
        assert caught.value.sqlstate == sqlstate
        assert message in caught.value.message
        assert (table_of(session, "t"), table_of(session, "bare")) == before

    play(scenario)


async def limited(session: Session) -> None:
    for name in ("orders", "items"):
        columns = "(tenant int, id int, PRIMARY KEY (tenant, id))"
        await run(session, f"CREATE TABLE {name} {columns} WITH (shard_key = 'tenant')")
        await run(session, f"INSERT INTO {name} SELECT g / 10, g FROM generate_series(1, 40) g")
    for name in ("orders", "items"):
        for limit in (1, 15, 40, 50):
            found = await run(session, f"SELECT id FROM {name} LIMIT {limit}")
            assert len(found) == min(limit, 40), (name, limit)


def test_a_limit_counts_the_rows_of_one_table_where_several_share_a_span() -> None:
    play(limited)
