"""Sieves: a shard leaves out exactly what the serving node would, and any bytes are a sieve or an error."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardforge.errors import NetworkError
from shardforge.sql.pgdata import procs
from shardforge.sql.sieve import terms
from shardforge.sql.sieve.pushable import is_pushable
from shardforge.sql.sieve.reading import read_sieve
from shardforge.storage.rowcodec import RowCodec
from tests.inprocess import run, running_node, session_of
from tests.sieves import Scan

ROUNDS = 200
"""Conditions of a seed."""
SCHEMA = """
    CREATE TABLE t (id int PRIMARY KEY, gone text, b boolean, i2 smallint, i4 int, i8 bigint, f4 real, f8 float8,
      n numeric, s text, v varchar(20), c char(5), y bytea, d date, tm time, tz timetz, ts timestamp, tstz timestamptz,
      iv interval, u uuid, j jsonb, ai int[], at text[])
"""
"""Of each type, values that are equal, near, extreme and of other forms."""
VALUES = {
    "b": ["true", "false"],
    "i2": ["0", "1", "-1", "7", "32767", "-32768"],
    "i4": ["0", "1", "-1", "7", "100", "2147483647"],
    "i8": ["0", "1", "-1", "7", "9223372036854775807", "-9223372036854775808"],
    "f4": ["0", "-0", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "3e38"],
    "f8": ["0", "-0", "1.5", "0.1", "NaN", "Infinity", "-Infinity", "1e300"],
    "n": [
        "0",
        "0.00",
        "1.5",
        "1.50",
        "NaN",
        "Infinity",
        "-7.25",
        "123456789012345678901234567890.5",
    ],
    "s": ["", "a", "A", "ab", "a%b", "a_b", "ä", "abc\\", "  x "],
    "v": ["", "a", "ab", "abc ", "xyz"],
    "c": ["", "a", "ab", "a  ", "xyz"],
    "y": ["\\x", "\\x00", "\\x61", "\\xff61"],
    "d": ["2024-02-29", "2000-01-01", "infinity", "-infinity", "0044-03-15 BC"],
    "tm": ["00:00", "12:30:15.5", "24:00"],
    "tz": ["12:00+00", "13:00+01", "12:00-05"],
    "ts": ["2024-02-29 12:00", "2000-01-01", "infinity", "-infinity"],
    "tstz": ["2024-02-29 12:00+00", "2024-02-29 13:00+01", "infinity"],
    "iv": ["1 day", "24 hours", "1 month", "30 days", "-1 second", "0"],
    "u": ["00000000-0000-0000-0000-000000000000", "11111111-2222-3333-4444-555555555555"],
    "j": ["null", "1", "1.0", '"a"', '{"a": 1}', '{"a": {"b": [1, 2]}}', "[1, 2]", "[]"],
    "ai": ["{}", "{1,2}", "{1,NULL}", "{{1,2},{3,4}}", "[0:1]={7,8}"],
    "at": ["{}", "{a,b}", "{NULL}", '{"",ab}'],
    "late": ["5", "6", "0"],
    "later": ["new", "newer", ""],
    "never": ["1.5"],
}
TYPES = {
    "b": "boolean", "i2": "smallint", "i4": "int", "i8": "bigint", "f4": "real", "f8": "float8", "n": "numeric",
    "s": "text", "v": "varchar", "c": "char(5)", "y": "bytea", "d": "date", "tm": "time", "tz": "timetz",
    "ts": "timestamp", "tstz": "timestamptz", "iv": "interval", "u": "uuid", "j": "jsonb", "ai": "int[]",
    "at": "text[]", "late": "int", "later": "text", "never": "numeric",
}  # fmt: skip
LATER = ("late", "later", "never")
NUMBERS = ("i2", "i4", "i8", "f4", "f8", "n", "late")
TEXTS = ("s", "v", "later")
ORDER = ("=", "<>", "<", "<=", ">", ">=")


class Conditions:
    """Random conditions over the table."""

    def __init__(self, choice: random.Random) -> None:
        self._choose = choice.choice
        self._choice = choice

    def value(self, column: str) -> str:
        if self._choice.random() < 0.1:
            return f"NULL::{TYPES[column]}"
        text = self._choose(VALUES[column]).replace("'", "''")
        return f"'{text}'::{TYPES[column]}"

    def number(self, depth: int) -> str:
        column = self._choose(NUMBERS)
        if not depth or self._choice.random() < 0.4:
            return column if self._choice.random() < 0.7 else self.value(column)
        left, right = self.number(depth - 1), self.number(depth - 1)
        return self._choose(
            [f"({left} {self._choose('+-*/')} {right})", f"abs({left})", f"coalesce({left}, {right})", f"(- {left})"]
        )  # fmt: skip

    def comparison(self) -> str:
        column = self._choose(list(TYPES))
        value, other = self.value(column), self.value(column)
        kind = self._choice.randrange(9)
        if kind == 0:
            return f"{column} IS {self._choose(['', 'NOT '])}NULL"
        if kind == 1:
            return f"{column} IS {self._choose(['', 'NOT '])}DISTINCT FROM {value}"
        if kind == 2:
            return (
                f"{column} {self._choose(['', 'NOT '])}IN ({value}, {other}, {self.value(column)})"
            )
        if kind == 3 and column not in ("ai", "at"):
            array = f"ARRAY[{value}, {other}]::{TYPES[column]}[]"
            empty = f"ARRAY[]::{TYPES[column]}[]"
            chosen = self._choose([array, array, empty])
            return f"{column} {self._choose(ORDER)} {self._choose(['ANY', 'ALL'])} ({chosen})"
        if kind == 4:
            return f"{column} {self._choose(['', 'NOT '])}BETWEEN {value} AND {other}"
        if kind == 5:
            return f"({column}, i4) {self._choose(ORDER[2:])} ({value}, {self.value('i4')})"
        return f"{column} {self._choose(ORDER)} {value}"

    def special(self) -> str:
        text = self._choose(TEXTS)
        pattern = self._choose(["a%", "%b", "%a%", "a_b", "_", "%", "", "a\\%b", "ab\\\\"])
        like = self._choose(["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"])
        return self._choose(
            [
                f"{text} {like} '{pattern}'", f"length({text}) {self._choose(ORDER)} 2", f"upper({text}) = 'AB'",
                f"substr({text}, 2) = 'b'", f"{text} || 'x' {self._choose(ORDER)} 'ax'", f"left({text}, 1) = 'a'",
                "j -> 'a' = '1'", "j ->> 'a' = '1'", "j @> '{\"a\": 1}'", "j ? 'a'", "j #>> '{a,b}' IS NULL",
                "ai @> '{1}'", "ai && ARRAY[2, 7]", "7 = ANY(ai)", "1 = ALL(ai)", "array_length(ai, 1) = 2",
                "'a' = ANY(at)", "extract(year FROM d) > 2000", "d + 1 > '2024-02-29'", "ts - interval '1 day' < ts",
                "date_trunc('month', ts) = '2024-02-01'", "isfinite(d)", "ts::date = d", "i4::bigint = i8",
                "n::int = 2", "i8::int > 0", "f8::numeric = n", "i4 % 2 = 1", "i4 / i2 > 0", "i2 & 1 = 1", "b",
                "NOT b", "b IS NOT TRUE", "b IS UNKNOWN", "i8 * i8 > 0", "tstz > now()",
                "d < current_date", "n = ANY(ARRAY[1.5, NULL, 0])", "iv + iv > interval '2 days'", "c = 'a'", "c = v",
                "i4 = (1 + 6)", "s = 'a' || 'b'", "round(n, 0) = 2",
            ]
        )  # fmt: skip

    def condition(self, depth: int = 3) -> str:
        kind = self._choice.random()
        if not depth or kind < 0.3:
            return self.comparison()
        if kind < 0.55:
            return self.special()
        if kind < 0.65:
            return f"{self.number(2)} {self._choose(ORDER)} {self.number(2)}"
        left, right = self.condition(depth - 1), self.condition(depth - 1)
        return self._choose(
            [
                f"({left} AND {right})",
                f"({left} OR {right})",
                f"NOT ({left})",
                f"({left}) IS NOT TRUE",
            ]
        )


def rows(conditions: Conditions, columns: list[str], first: int, count: int) -> str:
    lists = [", ".join([str(first + n), *map(conditions.value, columns)]) for n in range(count)]
    return (
        f"INSERT INTO t (id, {', '.join(columns)}) VALUES {', '.join(f'({one})' for one in lists)}"
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_shard_leaves_out_what_the_serving_node_would(seed: int) -> None:
    asyncio.run(_compared(Conditions(random.Random(seed))))


async def _compared(conditions: Conditions) -> None:
    """Rows of four layouts: columns were added, with a default and without, one was dropped and came anew."""
    sifted = left_out = failed = 0
    async with running_node() as node:
        session = session_of(node)
        await run(session, SCHEMA)
        columns = [column for column in TYPES if column not in LATER]
        await run(session, rows(conditions, columns, 0, 25))
        await run(session, "ALTER TABLE t ADD COLUMN late int DEFAULT 5, DROP COLUMN gone")
        await run(session, rows(conditions, [*columns, "late"], 100, 15))
        await run(session, "ALTER TABLE t ADD COLUMN later text DEFAULT 'new'")
        await run(session, "ALTER TABLE t ADD COLUMN never numeric")
        await run(session, rows(conditions, list(TYPES), 200, 20))
        stored = [pair async for pair in Scan(session, "SELECT * FROM t WHERE b").stored()]
        assert len(stored) == 60
        for _ in range(ROUNDS):
            condition = conditions.condition()
            scan = Scan(session, f"SELECT 1 FROM t WHERE {condition}")
            if scan.node.condition is None or not scan.sieve():
                continue
            sifted += 1
            judged = list(scan.judged(stored))
            for one in judged:
                assert one.passes or one.wanted is False, (condition, one)
            left_out += sum(not one.passes for one in judged)
            failed += sum(one.wanted is None for one in judged)
            kept = [one for one in judged if one.passes and one.wanted is False]
            assert not kept, (condition, kept)
    assert sifted > ROUNDS * 0.9, "nearly all of these are on the list"
    assert left_out, "not all rows pass all conditions"
    assert failed, "some raise errors"


# ---- bytes from another node -----------------------------------------------------------------------

PROCS = [proc.oid for proc in procs() if is_pushable(proc.oid)]
PLACES = st.integers(-1, 6)
LISTS = st.lists(PLACES, max_size=3)
OIDS = st.sampled_from([16, 20, 23, 25, 701, 1007, 1009, 1184, 1700, 3802, 0, 4_000_000_000])
PAIRS = st.lists(st.tuples(st.sampled_from(PROCS), st.integers(0, 5_000)), max_size=2)
ANY_PROC = st.sampled_from(PROCS) | st.integers(0, 5_000)
TERMS = st.one_of(
    st.builds(terms.Value, PLACES), st.builds(terms.Column, PLACES), st.builds(terms.Call, ANY_PROC, LISTS, OIDS),
    st.builds(terms.Relabel, PLACES, OIDS), st.builds(terms.Logic, st.sampled_from(["and", "or", "not", "nor"]), LISTS),
    st.builds(terms.IsNull, PLACES, st.booleans()),
    st.builds(terms.IsTruth, PLACES, st.sampled_from(["true", "false", "unknown", "maybe"]), st.booleans()),
    st.builds(terms.Distinct, ANY_PROC, PLACES, PLACES, st.booleans()),
    st.builds(terms.AnyOf, ANY_PROC, PLACES, PLACES, st.booleans()), st.builds(terms.Items, LISTS, OIDS),
    st.builds(terms.Coalesce, LISTS, OIDS),
    st.builds(terms.Rows, st.sampled_from(["<", ">=", "~"]), LISTS, LISTS, PAIRS),
)  # fmt: skip
LAYOUT = [(1, 23), (2, 25), (3, 1007)]
ROW = RowCodec([LAYOUT]).encode((7, "text", None))
VALUES_ROW = RowCodec([[(0, 23), (1, 25)]]).encode((7, None))


def made(given_terms: list[terms.Term], picks: list[int]) -> bytes:
    return terms.encode(terms.Sieve([LAYOUT], [], b"", picks, [23, 25], VALUES_ROW, given_terms))


@given(data=st.binary(max_size=200), row=st.binary(max_size=60))
def test_any_bytes_are_a_sieve_or_refused(data: bytes, row: bytes) -> None:
    with suppress(NetworkError):
        assert read_sieve(data)(b"key", row) in (True, False)


@given(
    given_terms=st.lists(TERMS, max_size=8),
    picks=st.lists(st.integers(-1, 4), max_size=3),
    row=st.binary(max_size=60),
)
def test_any_terms_are_a_sieve_or_refused(
    given_terms: list[terms.Term], picks: list[int], row: bytes
) -> None:  # fmt: skip
    with suppress(NetworkError):
        passes = read_sieve(made(given_terms, picks))
        assert passes(b"key", ROW) in (True, False)
        assert passes(b"key", row) in (True, False)


@given(data=st.data())
def test_a_damaged_sieve_is_a_sieve_or_refused(data: st.DataObject) -> None:
    equal = terms.Call(65, [0, 1], 16)  # int4eq
    whole = made([terms.Column(0), terms.Value(0), equal], [0])
    assert read_sieve(whole)(b"key", ROW)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    with suppress(NetworkError):
        assert read_sieve(damaged)(b"key", ROW) in (True, False)


def test_what_would_take_long_is_refused() -> None:
    wide: list[terms.Term] = [terms.Column(0)]
    wide += [terms.Logic("and", [place, place]) for place in range(40)]
    deep: list[terms.Term] = [terms.Column(0)]
    deep += [terms.Logic("not", [place]) for place in range(terms.DEPTH_MAX)]
    for refused in (
        made(wide, [0]),
        made(deep, [0]),
        b"\x91" * 100_000,
        bytes(terms.SIEVE_BYTES_MAX + 1),
    ):
        with pytest.raises(NetworkError) as caught:
            read_sieve(refused)
        assert caught.value.sqlstate == "08P01"
    volatile = next(proc.oid for proc in procs() if proc.proname == "pg_sleep")
    with pytest.raises(NetworkError, match="may not have"):
        read_sieve(made([terms.Value(0), terms.Call(volatile, [0], 2278)], []))
    assert msgspec.msgpack.decode(made([terms.Column(0)], [0]))
