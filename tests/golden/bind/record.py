"""Asks a PostgreSQL 15 what it makes of the statements in *.sql here, and writes answers.jsonl.

    BIND_DSN="host=... dbname=scratch" python -m tests.golden.bind.record

The database's public schema is replaced. Statements are prepared and described, never run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq

HERE = Path(__file__).parent
FIRST_USER_OID = 16384


def statements(name: str) -> list[str]:
    """The statements of a file, which end with a semicolon at the end of a line."""
    parts = (HERE / name).read_text("utf-8").split(";\n")
    return [part.strip() for part in parts if part.strip()]


def describe(connection: psycopg.Connection[Any], sql: str) -> dict[str, Any]:
    """PostgreSQL's answer: result columns and parameter types, or the error."""
    result = connection.pgconn.prepare(b"", sql.encode())
    if result.status != pq.ExecStatus.COMMAND_OK:
        field = pq.DiagnosticField

        def text(which: pq.DiagnosticField) -> str:
            return (result.error_field(which) or b"").decode()

        return {
            "sql": sql,
            "sqlstate": text(field.SQLSTATE),
            "message": text(field.MESSAGE_PRIMARY),
            "position": int(text(field.STATEMENT_POSITION) or 0),
            "hint": text(field.MESSAGE_HINT),
            "detail": text(field.MESSAGE_DETAIL),
        }
    result = connection.pgconn.describe_prepared(b"")
    columns = []
    for i in range(result.nfields):
        oid = result.ftype(i)
        name = (result.fname(i) or b"").decode()
        columns.append([name, oid if oid < FIRST_USER_OID else "row", result.fmod(i)])
    parameters = [result.param_type(i) for i in range(result.nparams)]
    return {"sql": sql, "columns": columns, "parameters": parameters}


def main() -> None:
    """Write the file."""
    with psycopg.connect(os.environ["BIND_DSN"], autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
        for statement in statements("schema.sql"):
            connection.execute(statement.encode())
        lines = [
            json.dumps(describe(connection, sql), ensure_ascii=False)
            for name in ("statements.sql", "psql.sql")
            for sql in statements(name)
        ]
    (HERE / "answers.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
