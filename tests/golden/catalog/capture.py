"""Records what clients ask of the catalog, and PostgreSQL's answers: `queries.jsonl` beside this file.

    python capture.py "host=... port=... user=... dbname=scratch"

Loads `schema.sql` into an empty database, runs psql's backslash commands, SQLAlchemy's reflection and asyncpg's type
introspection there, and keeps each query once with its rows as text. Oids of the schema's own objects are written as
{kind:name}, in queries and in rows, because they differ on every server. Run by hand when a client changes; tests read
only the recorded file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from asyncpg import introspection

HERE = Path(__file__).parent
COMMANDS = (
    r"\d", r"\dt", r"\di", r"\ds", r"\dv", r"\dn", r"\du", r"\l", r"\df abs", r"\dT integer", r"\dp", r"\dx",
    r"\d customer", r"\d item", r"\d shop.purchase", r"\d rich", r"\d counter", r"\d log", r"\d item_big",
    r"\d+ customer", r"\dt shop.*", r"\dC integer", r"\do ||", r"\dd", r"\sv rich", r"\dL", r"\db", r"\da count",
)  # fmt: skip
REFLECTIONS = (
    "get_table_names", "get_view_names", "get_sequence_names", "get_multi_columns", "get_multi_pk_constraint",
    "get_multi_foreign_keys", "get_multi_indexes", "get_multi_unique_constraints", "get_multi_check_constraints",
    "get_multi_table_comment",
)  # fmt: skip
NAMES = """
SELECT oid::text, 'class:' || relname FROM pg_class WHERE oid >= 16384
UNION ALL SELECT oid::text, 'constraint:' || conname FROM pg_constraint WHERE oid >= 16384
UNION ALL SELECT oid::text, 'type:' || typname FROM pg_type WHERE oid >= 16384
UNION ALL SELECT oid::text, 'namespace:' || nspname FROM pg_namespace WHERE oid >= 16384
UNION ALL SELECT oid::text, 'database' FROM pg_database WHERE datname = current_database()
"""


def text_rows(connection: Any, query: str) -> tuple[list[str], list[list[str | None]]]:
    """(column names, rows as the server writes them)."""
    result = connection.pgconn.exec_(query.encode())
    if result.status not in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK):
        raise RuntimeError(f"{result.error_message.decode()}\n{query}")
    names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
    rows = []
    for row in range(result.ntuples):
        values = (result.get_value(row, column) for column in range(result.nfields))
        rows.append([None if value is None else value.decode() for value in values])
    return names, rows


def psql_queries(dsn: str) -> list[tuple[str, str]]:
    """(command, query) of every query behind a backslash command."""
    found = []
    for command in COMMANDS:
        done = subprocess.run(
            ["psql", "-X", "-E", "-d", dsn, "-c", command],
            capture_output=True,
            text=True,
            check=False,
        )
        queries = re.findall(r"\*+ QUERY \*+\n(.*?)\n\*{10,}", done.stdout, re.DOTALL)
        found += [(f"psql {command}", query) for query in queries]
    return found


def sqlalchemy_queries(dsn: str) -> list[tuple[str, str]]:
    """(inspector method, query) of SQLAlchemy's connection start and reflection."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(dsn, cursor_factory=psycopg.ClientCursor),
    )
    found: list[tuple[str, str]] = []
    label = "connect"

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def record(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        raw = cursor.connection if hasattr(cursor, "connection") else cursor._cursor.connection
        text = psycopg.ClientCursor(raw).mogrify(statement, parameters)
        found.append((f"sqlalchemy {label}", text))

    with engine.connect():
        pass
    inspector = sqlalchemy.inspect(engine)
    for schema in (None, "shop"):
        for name in REFLECTIONS:
            label = name
            getattr(inspector, name)(schema=schema)
    for name, arguments in (("get_schema_names", ()), ("get_enums", ()), ("get_domains", ()), ("has_table", ("item",)),
                            ("get_view_definition", ("rich",)), ("has_sequence", ("counter",))):  # fmt: skip
        label = name
        getattr(inspector, name)(*arguments)
    label = "metadata.reflect"
    sqlalchemy.MetaData().reflect(engine, views=True)
    engine.dispose()
    return found


def asyncpg_queries() -> list[tuple[str, str]]:
    """asyncpg asks for types that it does not know; arrays, composites and ranges lead it there."""
    wanted = "ARRAY[1007, 1009, 3802, 1700, 3904]::oid[]"
    return [
        ("asyncpg introspect_types", introspection.INTRO_LOOKUP_TYPES.replace("$1::oid[]", wanted)),
        (
            "asyncpg type by name",
            introspection.TYPE_BY_NAME.replace("$1", "'int4'").replace("$2", "'pg_catalog'"),
        ),
    ]


class Placeholders:
    """Oids of the schema's objects as {kind:name}, and back."""

    def __init__(self, names: list[list[str | None]]) -> None:
        self._of = {str(oid): "{" + str(name) + "}" for oid, name in names}
        self._pattern = re.compile(r"(?<![\w.])(" + "|".join(self._of) + r")(?![\w.])")

    def hide(self, text: str | None) -> str | None:
        """The text with oids replaced."""
        return None if text is None else self._pattern.sub(lambda m: self._of[m[1]], text)


def main(dsn: str) -> None:
    """Record everything into queries.jsonl."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        text_rows(connection, (HERE / "schema.sql").read_text())
        hide = Placeholders(text_rows(connection, NAMES)[1]).hide
        seen: dict[str, dict[str, Any]] = {}
        for label, query in [*psql_queries(dsn), *sqlalchemy_queries(dsn), *asyncpg_queries()]:
            if query not in seen:
                names, rows = text_rows(connection, query)
                hidden = [[hide(value) for value in row] for row in rows]
                seen[query] = {
                    "client": label,
                    "query": hide(query),
                    "columns": names,
                    "rows": hidden,
                }
    lines = (json.dumps(record, ensure_ascii=False) for record in seen.values())
    (HERE / "queries.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
