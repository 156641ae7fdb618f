"""Which literals are taken out of a text, and what a statement does when other texts of its template came before."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from shardforge.errors import DatabaseError
from shardforge.sql.parse import kinds, lift, literals
from shardforge.sql.session.scripts import statements
from shardforge.sql.session.session import Session
from tests.inprocess import MEMORY, run, run_text, running_node, session_of

TABLE = (
    "CREATE TABLE t (a int PRIMARY KEY, b text, c numeric(6,2), d timestamptz, e char(4), f bigint,"
    " g interval, h real)"
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("SELECT 1", (1,)),
        ("SELECT 1 ; \n", (1,)),
        ("select a1, b2.c3 from t4 where x=-5", (5,)),
        ("SELECT 2147483647, 2147483649, 9223372036854775807", (2**31 - 1, 2**31 + 1, 2**63 - 1)),
        ("SELECT 9223372036854775809, 1.50, .5, 1e3, 2.", ("9223372036854775809", "1.50", ".5", "1e3", "2.")),
        ("SELECT 'it''s', '', '''', '--', '/*'", ("it's", "", "'", "--", "/*")),
        ('SELECT "a 1 \'x\' ""2""" -- 3 \'\n, 4 /* 5 \' */', (4,)),
        ("SELECT a-1, a - -2, x::int, y[3:4]", (1, 2, 3, 4)),
        ("SELECT 'ä', 5 AS ö1", ("ä", 5)),
        ("SELECT '\\' , 'C:\\'", ("\\", "C:\\")),
    ],
)  # fmt: skip
def test_plain_literals_are_lifted(text: str, values: tuple[Any, ...]) -> None:
    lifted = lift(text)
    assert lifted is not None
    assert lifted[1] == values
    assert len(kinds(lifted[0])) == len(values) == len(literals(text))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t",
        "SELECT 1, E'a\\'b'",
        "SELECT 1, e'x'",
        "SELECT 1, B'01', X'ff', N'x'",
        "SELECT 1, U&'\\0041'",
        'SELECT 1, U&"\\0041"',
        "SELECT 1, $$it's$$",
        "SELECT 1, $x$'$x$",
        "SELECT 1 WHERE a = $1",
        "SELECT 'a'\n'b'",
        "SELECT 'a' 'b'",
        "SELECT 0x1F, 1_000, 1a, 1.2.3, 1..2",
        "SELECT 2147483648",
        "SELECT 9223372036854775808",
        "SELECT 1 /* a /* b */ c */",
        "SELECT 1 /* open",
        "SELECT 'open",
        'SELECT 1 "open',
        "SELECT 1; SELECT 2",
        "SELECT 'a\0b'",
        "SELECT '\ud800'",
        "SELECT " + ",".join("1" * 501),
    ],
)
def test_what_is_not_plain_is_left_alone(text: str) -> None:
    assert lift(text) is None


def test_a_template_tells_kinds_apart() -> None:
    texts = ["SELECT 5", "SELECT 5000000000", "SELECT 5.0", "SELECT '5'", "SELECT a5", 'SELECT "5"']
    templates = {(lift(text) or (text, ()))[0] for text in texts}
    assert len(templates) == len(texts)


def test_literals_stand_where_the_parser_says() -> None:
    found = literals("SELECT 'ä', -  7, 1 - 2")
    assert [(literal.location, literal.minus) for literal in found] == [
        (7, -1), (16, 13), (19, -1), (23, 21),
    ]  # fmt: skip


def test_scanning_takes_time_in_proportion_to_the_text() -> None:
    for nasty in ("0" * 30_000 + "x", "/* " * 10_000, "'" * 30_001, '" ' * 15_001, "E'" * 15_000):
        assert lift(f"SELECT {nasty}") is None


async def _both(statements: list[str], warm: list[str]) -> list[tuple[Any, Any, bool]]:
    """Each statement's outcome without lifting and with, after `warm` was prepared, and whether it was lifted."""
    without = replace(MEMORY, sql=replace(MEMORY.sql, statement_cache_size=0))
    async with running_node(without) as plain_node, running_node() as node:
        plain, session = session_of(plain_node), session_of(node)
        for each in (plain, session):
            await run(each, TABLE)
            await run(
                each,
                "INSERT INTO t SELECT g, 'b' || g, g / 2.0, '2024-01-01', 'x' || g, g FROM generate_series(1,9) g",
            )
        for sql in warm:
            try:
                session.prepare(sql)
            except DatabaseError:
                assert sql not in statements, "warm statements may fail, if they are others"
        found = []
        for sql in statements:
            expected, got = await outcome(plain, sql), await outcome(session, sql)
            known = _lifted(session, sql)
            found.append((expected, got, known))
        return found


def _lifted(session: Session, sql: str) -> bool:
    try:
        known = session.prepare(sql)
    except DatabaseError:
        return False
    return known is not None and known.constants is not None


async def outcome(session: Session, sql: str) -> Any:
    """What the client sees of a statement."""
    try:
        return await run_text(session, sql)
    except DatabaseError as error:
        return error.sqlstate, error.message, error.detail, error.hint, error.position


@pytest.mark.parametrize(
    ("warm", "sql", "lifted"),
    [
        ("SELECT b FROM t WHERE a = 1", "SELECT b FROM t WHERE a = 3", True),
        ("SELECT b FROM t WHERE a = 1", "SELECT b FROM t WHERE a = 3000000000", True),
        ("SELECT b FROM t WHERE a = -1", "SELECT b FROM t WHERE a + 5 > -3", True),
        ("SELECT a FROM t WHERE d > '2020-01-01'", "SELECT a FROM t WHERE d > '2020-13-01'", False),
        ("SELECT a FROM t WHERE d > '2020-01-01'", "SELECT a FROM t WHERE d > 'today'", False),
        ("SELECT a FROM t WHERE a = '1'", "SELECT a FROM t WHERE a = 'x'", False),
        ("SELECT a FROM t WHERE a = '1'", "SELECT a FROM t WHERE a = ' 4 '", True),
        ("SELECT b, a FROM t ORDER BY 1", "SELECT b, a FROM t ORDER BY 2", False),
        ("SELECT b, a FROM t WHERE a < 5 ORDER BY 1", "SELECT b, a FROM t WHERE a < 4 ORDER BY 1", True),
        ("SELECT b, a FROM t WHERE a < 5 ORDER BY 1", "SELECT b, a FROM t WHERE a < 4 ORDER BY 2", True),
        ("SELECT b, a FROM t WHERE a < 5 ORDER BY 1", "SELECT b, a FROM t WHERE a < 4 ORDER BY 3", False),
        ("SELECT a % 2, count(*) FROM t GROUP BY 1", "SELECT a % 3, count(*) FROM t GROUP BY 1", True),
        ("SELECT a % 2 FROM t GROUP BY a % 3", "SELECT a % 2 FROM t GROUP BY a % 2", False),
        ("SELECT 1::numeric(6,2)", "SELECT 7::numeric(5,1)", True),
        ("SELECT interval '1 day' day", "SELECT interval '1' day", False),
        ("SELECT interval '1 day'", "SELECT interval '1'", True),
        ("SELECT '1'::varchar(3)", "SELECT '12345'::varchar(3)", True),
        ("SELECT 't'::regclass", "SELECT 'nosuch'::regclass", False),
        ("SELECT 1, 't'::regclass::text", "SELECT 2, 'nosuch'::regclass::text", False),
        ("SELECT 1 AS x, 1 AS x ORDER BY x", "SELECT 1 AS x, 2 AS x ORDER BY x", False),
        ("SELECT a FROM t WHERE a IN (1, 2)", "SELECT a FROM t WHERE a IN (3, 3)", True),
        ("SELECT a FROM t WHERE c > 1 ORDER BY a LIMIT 2", "SELECT a FROM t WHERE c > 3 ORDER BY a LIMIT 1", True),
        ("SELECT a FROM t ORDER BY a OFFSET 2", "SELECT a FROM t ORDER BY a OFFSET -1", True),
        ("SELECT 5 / 1", "SELECT 5 / 0", True),
        ("SELECT 1::int2", "SELECT 70000::int2", True),
        ("SELECT h FROM t WHERE h = 1.5", "SELECT 1e300::real", True),
        ("SELECT 'NaN'::float8", "SELECT '1.5'::float8", True),
        ("UPDATE t SET c = 1.5 WHERE a = 1 RETURNING c", "UPDATE t SET c = 99999.5 WHERE a = 2 RETURNING c", True),
        ("UPDATE t SET e = 'abc' WHERE a = 1 RETURNING e", "UPDATE t SET e = 'abcde' WHERE a = 2 RETURNING e", True),
        ("UPDATE t SET e = 'abc' WHERE a = 1 RETURNING e", "UPDATE t SET e = 'x' WHERE a = 2 RETURNING e", True),
        ("UPDATE t SET g = '1 h' WHERE a = 1 RETURNING g", "UPDATE t SET g = '2 d' WHERE a = 1 RETURNING g", True),
        ("INSERT INTO t (a, f) VALUES (1, 2)", "INSERT INTO t (a, f) VALUES (77, -6)", True),
        ("INSERT INTO t (a, f) VALUES (1, 2) ON CONFLICT (a) DO NOTHING",
         "INSERT INTO t (a, f) VALUES (2, 2) ON CONFLICT (a) DO NOTHING", True),
        ("DELETE FROM t WHERE b = 'b1' RETURNING a", "DELETE FROM t WHERE b = 'b2' RETURNING a", True),
        ("SELECT random() * 0 FROM t ORDER BY random() * 1", "SELECT random() * 0 FROM t ORDER BY random() * 0", False),
        ("SELECT '[1]'::jsonb", "SELECT '[1'::jsonb", False),
        ("SELECT ARRAY[1, 2]", "SELECT ARRAY[3, 4]", True),
        ("SELECT CASE a WHEN 1 THEN 'x' ELSE 'y' END FROM t WHERE a = 2",
         "SELECT CASE a WHEN 2 THEN 'p' ELSE 'q' END FROM t WHERE a = 2", True),
    ],
)  # fmt: skip
def test_a_plan_of_other_literals_changes_nothing(warm: str, sql: str, *, lifted: bool) -> None:
    ((expected, got, known),) = asyncio.run(_both([sql], [warm]))
    assert got == expected
    assert known is lifted


def test_a_statement_of_a_script_is_lifted_too() -> None:
    async def rows() -> list[Any]:
        found = []
        async with running_node() as node:
            session = session_of(node)
            await run(session, TABLE)
            for text in (
                "INSERT INTO t (a) VALUES (1)",
                "INSERT INTO t (a) VALUES (2); SELECT a FROM t WHERE a = 2",
            ):
                async for prepared in statements(session, text):
                    rows, _ = await session.fetch_all(await session.run(prepared))
                    found.append((rows, prepared.constants))
                await session.finish_implicit()
        return found

    assert asyncio.run(rows()) == [([], (1,)), ([], (2,)), ([(2,)], (2,))]


def test_ddl_between_two_statements_of_a_template_is_seen() -> None:
    async def rows() -> list[Any]:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE s (a int, b int)")
            await run(session, "INSERT INTO s (a, b) VALUES (1, 2)")
            await run(session, "ALTER TABLE s ALTER b TYPE text")
            await run(session, "INSERT INTO s (a, b) VALUES (3, 4)")
            return await run(session, "SELECT * FROM s ORDER BY a")

    assert asyncio.run(rows()) == [(1, "2"), (3, "4")]


def test_the_time_zone_of_the_session_reads_its_literals() -> None:
    async def rows() -> list[Any]:
        found = []
        async with running_node() as node:
            session = session_of(node)
            for zone, day in (("UTC", 1), ("UTC", 2), ("Asia/Tokyo", 1), ("Asia/Tokyo", 2)):
                await run(session, f"SET timezone = '{zone}'")
                sql = f"SELECT extract(epoch FROM '2024-01-0{day} 00:00'::timestamptz)::bigint"
                found.append((await run(session, sql))[0][0])
        return found

    day, start, tokyo = 86_400, 1_704_067_200, 9 * 3600
    assert asyncio.run(rows()) == [start, start + day, start - tokyo, start + day - tokyo]


async def _run_script(session: Session, script: str) -> None:
    async for prepared in statements(session, script):
        await session.fetch_all(await session.run(prepared))


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("SELECT 1; CREATE TABLE s (a nosuch)", "nosuch"),
        ("SELECT 'ä'; EXPLAIN SELECT nothing", "nothing"),
    ],
)
def test_an_error_in_a_utility_statement_is_placed_in_its_script(script: str, word: str) -> None:
    async def position() -> int:
        async with running_node() as node:
            session = session_of(node)
            with pytest.raises(DatabaseError) as raised:
                await _run_script(session, script)
            await session.fail()
            return raised.value.position

    assert asyncio.run(position()) == script.index(word) + 1
