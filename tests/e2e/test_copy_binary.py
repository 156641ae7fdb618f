"""Binary COPY as drivers speak it: psycopg both ways, asyncpg's copy_records_to_table and copy_from_table."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import uuid
from decimal import Decimal
from typing import Any

import asyncpg
import psycopg
import pytest

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

COLUMNS = (
    "id int8 PRIMARY KEY, flag bool, amount numeric(20,4), ratio float8, name text, raw bytea, day date, "
    "at timestamptz, key uuid, tags text[], numbers int4[]"
)
TYPES = [
    "int8",
    "bool",
    "numeric",
    "float8",
    "text",
    "bytea",
    "date",
    "timestamptz",
    "uuid",
    "text[]",
    "int4[]",
]
NOON = dt.datetime(2024, 6, 1, 12, 0, 0, 5, tzinfo=dt.UTC)


def record(number: int) -> tuple[Any, ...]:
    if number % 5 == 0:
        return (number, *[None] * 10)
    return (
        number, number % 2 == 0, Decimal(number).scaleb(-4), number / 7, f"näme\t{number}\n", bytes([number % 256, 0]),
        dt.date(2000, 1, 1) + dt.timedelta(days=number), NOON, uuid.UUID(int=number), ["a,b", f'"{number}"'],
        [number, -number],
    )  # fmt: skip


RECORDS = [record(number) for number in range(3000)]


def test_psycopg_both_ways(server: ServerProcess) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE binary_psycopg ({COLUMNS})".encode())
        with cursor.copy("COPY binary_psycopg FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(TYPES)
            for row in RECORDS:
                copy.write_row(row)
        assert cursor.statusmessage == "COPY 3000"
        query = "COPY (SELECT * FROM binary_psycopg ORDER BY id) TO STDOUT (FORMAT BINARY)"
        with cursor.copy(query) as copy:
            copy.set_types(TYPES)
            assert list(copy.rows()) == RECORDS
        with cursor.copy("COPY (SELECT 1 WHERE false) TO STDOUT (FORMAT BINARY)") as copy:
            assert list(copy.rows()) == []


def test_psycopg_errors_leave_the_connection_usable(server: ServerProcess) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE binary_errors (id int PRIMARY KEY, day date)")
        with (
            pytest.raises(psycopg.errors.BadCopyFileFormat, match="signature not recognized"),
            cursor.copy("COPY binary_errors FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write(b"no signature at all")
        connection.rollback()
        with (
            pytest.raises(psycopg.errors.InvalidBinaryRepresentation),
            cursor.copy("COPY binary_errors FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.write_row((2**40, NOON.date()))  # the driver sends an int8
        connection.rollback()
        assert cursor.execute("SELECT 1").fetchone() == (1,)


def test_asyncpg_copies_records(server: ServerProcess) -> None:
    async def go() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=server.port, user="shardforge", database="shardforge"
        )
        try:
            await connection.execute(f"CREATE TABLE binary_asyncpg ({COLUMNS})")
            tag = await connection.copy_records_to_table("binary_asyncpg", records=RECORDS)
            assert tag == "COPY 3000"
            got = await connection.fetch("SELECT * FROM binary_asyncpg ORDER BY id")
            assert [tuple(row) for row in got] == RECORDS
            copied = io.BytesIO()
            await connection.copy_from_table("binary_asyncpg", output=copied, format="binary")
            await connection.execute("CREATE TABLE binary_again (LIKE binary_asyncpg)")
            copied.seek(0)
            again = await connection.copy_to_table("binary_again", source=copied, format="binary")
            assert again == "COPY 3000"
            same = "SELECT count(*) FROM binary_asyncpg a JOIN binary_again b USING (id) WHERE a.name = b.name"
            assert await connection.fetchval(same) == 2400
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.copy_records_to_table("binary_asyncpg", records=RECORDS[:1])
            with pytest.raises(asyncpg.UndefinedColumnError):
                await connection.copy_records_to_table(
                    "binary_asyncpg", records=[(1,)], columns=["no"]
                )
        finally:
            await connection.close()

    asyncio.run(go())
