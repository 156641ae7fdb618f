"""Enum types through psycopg, asyncpg, SQLAlchemy and psql, over a restart and on a node that follows."""

from __future__ import annotations

import asyncio
import enum
import subprocess
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.types.enum import EnumInfo, register_enum
from sqlalchemy import ARRAY, Enum, MetaData, Table, create_engine, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e


class Mood(enum.Enum):
    """In an order that is not the alphabet's."""

    SAD = "sad"
    OK = "ok"
    HAPPY = "happy"


def test_psycopg_reads_and_writes_registered_enums(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TYPE pg_mood AS ENUM ('SAD', 'OK', 'HAPPY')")
        info = EnumInfo.fetch(connection, "pg_mood")
        assert info is not None
        assert list(info.labels) == ["SAD", "OK", "HAPPY"]
        register_enum(info, connection, Mood)
        connection.execute("CREATE TABLE pg_moods (m pg_mood PRIMARY KEY, others pg_mood[])")
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                mark = "%b" if binary else "%t"
                cursor.execute("DELETE FROM pg_moods")
                cursor.executemany(
                    f"INSERT INTO pg_moods VALUES ({mark}, {mark})",
                    [(Mood.HAPPY, [Mood.OK, Mood.SAD]), (Mood.SAD, []), (Mood.OK, None)],
                )
                cursor.execute("SELECT m, others FROM pg_moods ORDER BY m")
                assert cursor.fetchall() == [
                    (Mood.SAD, []), (Mood.OK, None), (Mood.HAPPY, [Mood.OK, Mood.SAD]),
                ]  # fmt: skip
                cursor.execute(f"SELECT m FROM pg_moods WHERE m > {mark}", (Mood.OK,))
                assert cursor.fetchall() == [(Mood.HAPPY,)]
        for form in ("text", "binary"):
            with connection.cursor() as cursor:
                with cursor.copy(
                    f"COPY pg_moods TO STDOUT (FORMAT {form})"  # type: ignore[arg-type]
                ) as copy:
                    data = b"".join(bytes(piece) for piece in copy)
                connection.execute("DELETE FROM pg_moods")
                with cursor.copy(
                    f"COPY pg_moods FROM STDIN (FORMAT {form})"  # type: ignore[arg-type]
                ) as copy:
                    copy.write(data)
                cursor.execute("SELECT count(*), max(m) FROM pg_moods")
                assert cursor.fetchone() == (3, Mood.HAPPY)
        with pytest.raises(psycopg.errors.InvalidTextRepresentation) as caught:
            connection.execute("INSERT INTO pg_moods VALUES (%s::text::pg_mood)", ("angry",))
        assert 'invalid input value for enum pg_mood: "angry"' in str(caught.value)


def test_a_prepared_statement_follows_its_type(server: ServerProcess) -> None:
    with server.connect() as connection, server.connect() as other:
        connection.execute("CREATE TYPE p_mood AS ENUM ('sad', 'happy')")
        connection.execute("CREATE TABLE p_moods (m p_mood)")
        ask = "SELECT m::text AS t, m FROM p_moods WHERE m = %s ORDER BY m"
        connection.execute("INSERT INTO p_moods VALUES ('sad'), ('happy')")
        for _ in range(3):
            assert connection.execute(ask, ("sad",), prepare=True).fetchall() == [("sad", "sad")]
        other.execute("ALTER TYPE p_mood RENAME VALUE 'sad' TO 'blue'")
        other.execute("ALTER TYPE p_mood ADD VALUE 'ok' BEFORE 'happy'")
        assert connection.execute(ask, ("blue",), prepare=True).fetchall() == [("blue", "blue")]
        connection.execute("INSERT INTO p_moods VALUES (%s)", ("ok",))
        assert connection.execute("SELECT m FROM p_moods ORDER BY m").fetchall() == [
            ("blue",), ("ok",), ("happy",),
        ]  # fmt: skip
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute(ask, ("sad",), prepare=True)


def test_asyncpg_introspects_enums_and_sends_them_in_binary(server: ServerProcess) -> None:
    async def run() -> None:
        connection: Any = await asyncpg.connect(server.url("x").replace("+x", ""))
        try:
            await connection.execute("CREATE TYPE a_mood AS ENUM ('sad', 'ok', 'happy')")
            await connection.execute("CREATE TABLE a_moods (id int, m a_mood, others a_mood[])")
            await connection.executemany(
                "INSERT INTO a_moods VALUES ($1, $2, $3)",
                [(1, "happy", ["sad", "ok"]), (2, "sad", None), (3, None, [])],
            )
            rows = await connection.fetch("SELECT m, others FROM a_moods ORDER BY m")
            assert [tuple(row) for row in rows] == [
                ("sad", None), ("happy", ["sad", "ok"]), (None, []),
            ]  # fmt: skip
            assert (
                await connection.fetchval("SELECT max(m) FROM a_moods WHERE m >= $1", "ok")
                == "happy"
            )
            assert await connection.fetchval("SELECT ROW(m, 1) FROM a_moods WHERE id = 1") == (
                "happy",
                1,
            )
            await connection.copy_records_to_table(
                "a_moods", records=[(4, "ok", ["happy"])], columns=("id", "m", "others")
            )
            assert await connection.fetchval("SELECT m FROM a_moods WHERE id = 4") == "ok"
            with pytest.raises(asyncpg.InvalidTextRepresentationError):
                await connection.execute("INSERT INTO a_moods VALUES (5, $1)", "angry")
        finally:
            await connection.close()

    asyncio.run(run())


class Base(DeclarativeBase):
    """The models' registry."""


class Animal(Base):
    """Has a mood."""

    __tablename__ = "sa_animal"
    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[Mood] = mapped_column(Enum(Mood, name="sa_mood"), default=Mood.OK, index=True)
    past: Mapped[list[Mood] | None] = mapped_column(ARRAY(Enum(Mood, name="sa_mood")))


def test_sqlalchemy_creates_reflects_and_drops_enums(server: ServerProcess) -> None:
    engine = create_engine(server.url("psycopg"))
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # checkfirst
    with Session(engine) as session:
        session.add_all([Animal(id=1, mood=Mood.HAPPY, past=[Mood.SAD, Mood.OK]), Animal(id=2)])
        session.commit()
        session.add(Animal(id=3, mood=Mood.SAD))
        session.commit()
        assert session.scalars(select(Animal.mood).order_by(Animal.mood)).all() == [
            Mood.SAD, Mood.OK, Mood.HAPPY,
        ]  # fmt: skip
        found = session.scalars(select(Animal).where(Animal.mood == Mood.HAPPY)).one()
        assert found.past == [Mood.SAD, Mood.OK]
        found.mood = Mood.SAD
        session.commit()
        assert session.scalars(select(Animal.id).where(Animal.mood == Mood.SAD)).all() == [1, 3]
    mine = [e for e in inspect(engine).get_enums() if e["name"] == "sa_mood"]
    assert [(e["schema"], e["labels"], e["visible"]) for e in mine] == [
        ("public", ["SAD", "OK", "HAPPY"], True)
    ]
    reflected = Table("sa_animal", MetaData(), autoload_with=engine)
    assert isinstance(reflected.c.mood.type, Enum)
    assert reflected.c.mood.type.enums == ["SAD", "OK", "HAPPY"]
    assert isinstance(reflected.c.past.type, ARRAY)
    assert isinstance(reflected.c.past.type.item_type, Enum)
    Base.metadata.drop_all(engine)
    assert not [e for e in inspect(engine).get_enums() if e["name"] == "sa_mood"]
    engine.dispose()


def test_psql_describes_types_and_columns(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TYPE psql_mood AS ENUM ('sad', 'it''s ok')")
        connection.execute("COMMENT ON TYPE psql_mood IS 'how one feels'")
        connection.execute("CREATE TABLE psql_moods (m psql_mood DEFAULT 'sad', n psql_mood[])")
    shown = subprocess.run(
        ["psql", server.dsn, "-X", "-c", r"\dT+ psql_mood", "-c", r"\d psql_moods"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for part in ("psql_mood", "it's ok", "how one feels", "'sad'::psql_mood", "psql_mood[]"):
        assert part in shown
    assert "enum_" not in shown


def test_types_outlive_a_restart(fresh: ServerProcess) -> None:
    fresh.start()
    with fresh.connect() as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
        connection.execute("CREATE TABLE t (m mood PRIMARY KEY, d mood DEFAULT 'happy')")
        connection.execute("ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy'")
        connection.execute("INSERT INTO t VALUES ('happy'), ('ok'), ('sad')")
    fresh.kill()
    fresh.start()
    with fresh.connect() as connection:
        assert connection.execute("SELECT m, d FROM t ORDER BY m").fetchall() == [
            ("sad", "happy"), ("ok", "happy"), ("happy", "happy"),
        ]  # fmt: skip
        assert connection.execute("SELECT m FROM t WHERE m > 'sad' ORDER BY m DESC").fetchall() == [
            ("happy",), ("ok",),
        ]  # fmt: skip
