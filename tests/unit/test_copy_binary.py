"""COPY in binary against PostgreSQL 15's own bytes, and its answers to broken streams."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardforge.errors import DatabaseError, QueryError
from shardforge.sql.session.copy_binary import HEADER, TRAILER, BinaryReader, tuple_writer
from shardforge.sql.session.session import Session
from tests.inprocess import run, run_text, running_node, session_of

GOLDEN = Path(__file__).parents[1] / "golden" / "copy"


def cases(name: str) -> list[dict[str, Any]]:
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


async def copy_out(session: Session, sql: str) -> bytes:
    prepared = session.prepare(sql)
    assert prepared is not None
    outcome = await session.run(prepared)
    assert outcome.copy_out is not None
    assert outcome.copy_out.binary
    data = b"".join([piece async for piece in outcome.copy_out.pieces()])
    await session.finish_implicit()
    return data


async def copy_in(session: Session, sql: str, data: bytes, step: int) -> str:
    session.begin_statement(sql)
    try:
        prepared = session.prepare(sql)
        assert prepared is not None
        outcome = await session.run(prepared)
        assert outcome.copy_in is not None
        for start in range(0, len(data), step):
            await outcome.copy_in.feed(data[start : start + step])
        tag = await outcome.copy_in.finish()
        await session.finish_implicit()
    except DatabaseError:
        await session.fail()
        raise
    return tag


def test_every_type_travels_as_postgresql_sends_it() -> None:
    async def go() -> None:
        async with running_node() as node:
            session = session_of(node)
            await run(session, "SET timezone = 'UTC'")
            for number, case in enumerate(cases("binary.jsonl")):
                written, back = f"written{number}", f"back{number}"
                for table in (written, back):
                    await run(session, f"CREATE TABLE {table} (id serial, v {case['type']})")
                for value in case["values"]:
                    text = "NULL" if value is None else "'" + value.replace("'", "''") + "'"
                    insert = f"INSERT INTO {written} (v) VALUES ({text}::text::{case['type']})"
                    await run(session, insert)
                query = f"SELECT v FROM {written} ORDER BY id"
                data = await copy_out(session, f"COPY ({query}) TO STDOUT (FORMAT binary)")
                assert data.hex() == case["binary"], case
                target = f"COPY {back} (v) FROM STDIN WITH BINARY"
                assert await copy_in(session, target, data, 7) == "COPY 3"
                copied = await run_text(session, f"SELECT v FROM {back} ORDER BY id")
                assert copied == await run_text(session, query), case["type"]

    asyncio.run(go())


@pytest.mark.parametrize("step", [1, 1000])
def test_broken_streams_are_refused_as_postgresql_refuses_them(step: int) -> None:
    async def go() -> list[str]:
        wrong = []
        async with running_node() as node:
            session = session_of(node)
            await run(session, "CREATE TABLE b2 (a int NOT NULL, b text)")
            for case in cases("streams.jsonl"):
                await run(session, "DELETE FROM b2")
                answer: dict[str, Any]
                try:
                    data = bytes.fromhex(case["stream"])
                    tag = await copy_in(session, "COPY b2 FROM STDIN (FORMAT binary)", data, step)
                    rows, _ = await run_text(session, "SELECT * FROM b2")
                    answer = {"tag": tag, "rows": rows}
                except DatabaseError as error:
                    answer = {"error": [error.sqlstate, error.message]}
                expected = {k: v for k, v in case.items() if k not in ("name", "stream")}
                if answer != expected:
                    wrong.append(f"{case['name']}: {answer}, PostgreSQL {expected}")
        return wrong

    assert not asyncio.run(go())


rows = st.lists(st.lists(st.none() | st.binary(max_size=5), min_size=2, max_size=2), max_size=4)


@given(rows=rows, step=st.integers(1, 9))
def test_what_is_written_is_read_back(rows: list[list[bytes | None]], step: int) -> None:
    write = tuple_writer([bytes, bytes])
    data = HEADER + b"".join(write(row) for row in rows) + TRAILER
    reader = BinaryReader(2)
    read = [r for at in range(0, len(data), step) for r in reader.feed(data[at : at + step])]
    assert read + reader.finish() == rows


@given(data=st.binary(max_size=40), step=st.integers(1, 9))
def test_no_bytes_break_the_reader(data: bytes, step: int) -> None:
    reader = BinaryReader(2)
    stream = HEADER + data
    try:
        for at in range(0, len(stream), step):
            reader.feed(stream[at : at + step])
        reader.finish()
    except QueryError as error:
        outcome = error.sqlstate
    else:
        outcome = "22P04"
    assert outcome == "22P04"
