"""Names, types, parameters and errors of statements: ours against PostgreSQL 15's (golden/bind/answers.jsonl)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardforge.errors import DatabaseError
from shardforge.sql.bind.tree import Query
from tests.bind_catalog import bind, catalog_of

GOLDEN = Path(__file__).parent.parent / "golden" / "bind"
CATALOG = catalog_of((GOLDEN / "schema.sql").read_text("utf-8"))
ANSWERS: list[dict[str, Any]] = [
    json.loads(line) for line in (GOLDEN / "answers.jsonl").read_text("utf-8").splitlines()
]

DIFFERENT = {
    # What PostgreSQL does and we refuse.
    "insert into v values (1)": "0A000",
    "update v set a = 1": "0A000",
    "select a from t tablesample system (10)": "0A000",
    "select sq.last_value from sq": "0A000",
    # PostgreSQL finds these when it plans.
    "insert into t (a) values (1) on conflict (b) do nothing": "42P10",
    "insert into m (p, q) values (1, 'x') on conflict (i2) do nothing": "42P10",
    "select a from t left join u using (a) for update": "0A000",
}
"""Statements that only we refuse: SQLSTATE."""

INEXACT = {
    "select a from t offset 5 fetch first 3 rows with ties",
    "with recursive r(n) as (select 1 union all select n + 1.5 from r) select * from r",
    "select j.b from (t join u using (a)) as j(k, l)",
    "select count(generate_series(1,2))",
    'select b collate "nosuch" from t',
    "select row_to_json(t), to_json(b), to_jsonb(a), json_build_object('a', 1), json_agg(t) from t",
    "select grouping(c) from t group by a",
    "select * from (select a from t)",
}
"""Errors of which only the SQLSTATE is PostgreSQL's; position, hint or a name differs."""


def ours(sql: str) -> dict[str, Any]:
    try:
        bound = bind(CATALOG, sql)
    except DatabaseError as error:
        return {
            "sql": sql,
            "sqlstate": error.sqlstate,
            "message": error.message,
            "position": error.position,
            "hint": error.hint,
            "detail": error.detail,
        }
    tree = bound.tree
    outputs = tree.outputs if isinstance(tree, Query) else tree.returning or ()
    columns = [[o.name, o.type if o.type < 16384 else "row", o.typmod] for o in outputs]
    return {"sql": sql, "columns": columns, "parameters": bound.parameters}


@pytest.mark.parametrize("answer", ANSWERS, ids=[a["sql"][:60] for a in ANSWERS])
def test_statement_means_what_it_means_to_postgresql(answer: dict[str, Any]) -> None:
    sql = answer["sql"]
    found = ours(sql)
    if sql in DIFFERENT:
        assert found.get("sqlstate") == DIFFERENT[sql]
    elif sql in INEXACT:
        assert found.get("sqlstate") == answer["sqlstate"]
    else:
        assert found == answer
