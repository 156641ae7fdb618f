"""A node inside the test process, over the memory engine, and sessions on it: SQL without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from shardforge.config import Config
from shardforge.errors import DatabaseError
from shardforge.node import Node
from shardforge.sql.session.session import Session
from shardforge.sql.types.registry import format_type, output_function

MEMORY = replace(
    Config(),
    cluster=replace(Config().cluster, bind_address="127.0.0.1:0"),
    storage=replace(Config().storage, engine="memory"),
)


@asynccontextmanager
async def running_node(config: Config = MEMORY) -> AsyncIterator[Node]:
    """A running node; stopped at the end."""
    node = Node(config)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def session_of(node: Node) -> Session:
    """A new session of the superuser."""
    assert node.instance is not None, "running"
    return Session(node.instance, user="shardforge", database="shardforge")


async def run(session: Session, sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement, as Python values."""
    rows, _ = await session.execute(sql, params)
    return [tuple(row) for row in rows]


async def failure(session: Session, sql: str) -> DatabaseError:
    """What a statement that has to fail fails with."""
    with pytest.raises(DatabaseError) as caught:
        await run(session, sql)
    return caught.value


async def run_text(session: Session, sql: str) -> tuple[list[list[str | None]], list[str]]:
    """The rows of a statement as PostgreSQL's text, and its columns' types."""
    session.begin_statement(sql)
    try:
        prepared = session.prepare(sql)
        assert prepared is not None, "a statement"
        rows, _ = await session.fetch_all(await session.run(prepared))
        await session.finish_implicit()
    except DatabaseError:
        await session.fail()
        raise
    columns = prepared.columns or ()
    outputs = [output_function(column.type, session.settings) for column in columns]
    text = [
        [None if v is None else out(v) for v, out in zip(row, outputs, strict=True)] for row in rows
    ]
    return text, [format_type(column.type, None) for column in columns]
