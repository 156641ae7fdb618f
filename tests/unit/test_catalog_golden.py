"""What psql, SQLAlchemy and asyncpg ask of the catalog is answered as PostgreSQL 15 answered it.

`tests/golden/catalog/queries.jsonl` holds the queries with PostgreSQL's rows (see `capture.py` there), oids of the
schema's own objects as {kind:name}. Rows are compared in order where the query orders them, else as sets.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from shardforge.errors import DatabaseError
from tests.inprocess import run, run_text, running_node, session_of

HERE = Path(__file__).parent.parent / "golden" / "catalog"
QUERIES = [json.loads(line) for line in (HERE / "queries.jsonl").read_text().splitlines()]
NAMES = """
SELECT oid::text, 'class:' || relname FROM pg_class WHERE oid >= 16384
UNION ALL SELECT oid::text, 'constraint:' || conname FROM pg_constraint WHERE oid >= 16384
UNION ALL SELECT oid::text, 'type:' || typname FROM pg_type WHERE oid >= 16384
UNION ALL SELECT oid::text, 'namespace:' || nspname FROM pg_namespace WHERE oid >= 16384
UNION ALL SELECT oid::text, 'database' FROM pg_database WHERE datname = current_database()
"""
PLACEHOLDER = re.compile(r"\{((?:class|constraint|type|namespace):[^}]+|database)\}")
DIFFERENT = {
    r"psql \dn": "schema public belongs to the superuser: there is no role pg_database_owner",
    r"psql \du": "the reference server has a role of its own besides",
    r"psql \l": "the reference server has databases of its own besides, and templates",
    r"psql \dL": "no procedural language can be called",
    r"psql \db": "tablespaces belong to the superuser of another name",
    r"psql \sv rich": "a view's query is shown as it was written, with names resolved",
    "sqlalchemy get_view_definition": "likewise",
    "asyncpg introspect_types": "rows of equal depth come in another order",
}
"""Client's question -> why our answer is another."""


def normal(rows: list[list[str | None]], query: str) -> list[list[str | None]]:
    return rows if "ORDER BY" in query else sorted(rows, key=str)


async def failures() -> list[str]:
    found = []
    async with running_node() as node:
        session = session_of(node)
        for statement in (HERE / "schema.sql").read_text().split(";\n"):
            if statement.strip():
                await run(session, statement)
        names = {str(name): str(oid) for oid, name in await run(session, NAMES)}
        hide = {oid: "{" + name + "}" for name, oid in names.items()}
        pattern = re.compile(r"(?<![\w.])(" + "|".join(hide) + r")(?![\w.])")

        def hidden(value: str | None) -> str | None:
            return None if value is None else pattern.sub(lambda m: hide[m[1]], value)

        for record in QUERIES:
            query = PLACEHOLDER.sub(lambda m: names[m[1]], record["query"])
            found += await compare(session, record, query, hidden)
    return found


async def compare(session: Any, record: dict[str, Any], query: str, hidden: Any) -> list[str]:
    title = f"{record['client']}: {query[:2000]}"
    try:
        rows, _ = await run_text(session, query)
    except DatabaseError as error:
        return [f"{title}\n  {error.sqlstate} {error.message} {error.detail}"]
    mine = normal([[hidden(v) for v in row] for row in rows], query)
    theirs = normal(record["rows"], query)
    if mine == theirs or record["client"] in DIFFERENT:
        return []
    lines = [f"  - {row}" for row in theirs if row not in mine]
    lines += [f"  + {row}" for row in mine if row not in theirs]
    return [title + "\n" + "\n".join(lines or ["  the order differs"])]


def test_clients_get_postgresql_s_answers():
    assert not (found := asyncio.run(failures())), "\n\n".join(found)
