"""Asks a PostgreSQL 15 for the answers to the statements of a file here, and writes them into it.

    EXECUTE_DSN="host=... dbname=scratch" python -m tests.golden.execute.record enums

The database's public schema is replaced. A statement to record is a line `{"sql": "..."}`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import psycopg

HERE = Path(__file__).parent


def answer(connection: psycopg.Connection[Any], sql: str) -> dict[str, Any]:
    """PostgreSQL's rows as text, or its error."""
    result = connection.pgconn.exec_(sql.encode())
    if result.status in (psycopg.pq.ExecStatus.FATAL_ERROR, psycopg.pq.ExecStatus.BAD_RESPONSE):
        field = psycopg.pq.DiagnosticField
        fields = (
            field.SQLSTATE, field.MESSAGE_PRIMARY, field.MESSAGE_DETAIL, field.TABLE_NAME, field.CONSTRAINT_NAME,
        )  # fmt: skip
        return {"sql": sql, "error": [(result.error_field(f) or b"").decode() for f in fields]}
    rows = [
        [None if (raw := result.get_value(row, column)) is None else raw.decode() for column in range(result.nfields)]
        for row in range(result.ntuples)
    ]  # fmt: skip
    return {"sql": sql, "rows": rows}


def main() -> None:
    """Write the files named."""
    with psycopg.connect(os.environ["EXECUTE_DSN"], autocommit=True) as connection:
        for name in sys.argv[1:]:
            connection.execute("drop schema public cascade")
            connection.execute("create schema public")
            path = HERE / f"{name}.jsonl"
            asked = [json.loads(line)["sql"] for line in path.read_text("utf-8").splitlines()]
            lines = [json.dumps(answer(connection, sql)) for sql in asked]
            path.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
