"""The describe commands of the SQL shell: catalog questions and how their answers are titled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg

Answer = tuple[str, list[str], list[list[str]]]

_RELATIONS = """
SELECT n.nspname AS "Schema", c.relname AS "Name",
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'i' THEN 'index' ELSE 'sequence' END AS "Type",
       pg_catalog.pg_get_userbyid(c.relowner) AS "Owner"
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = ANY (%s) AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"""
_COLUMNS = """
SELECT a.attname AS "Column", pg_catalog.format_type(a.atttypid, a.atttypmod) AS "Type",
       CASE WHEN a.attnotnull THEN 'not null' ELSE '' END AS "Nullable",
       coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') AS "Default"
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
_INDEXES = """
SELECT c.relname AS "Index", pg_catalog.pg_get_indexdef(i.indexrelid) AS "Definition"
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s::regclass ORDER BY i.indisprimary DESC, c.relname"""
_CONSTRAINTS = """
SELECT conname AS "Constraint", pg_catalog.pg_get_constraintdef(oid) AS "Definition"
FROM pg_catalog.pg_constraint WHERE conrelid = %s::regclass ORDER BY conname"""

COMMANDS = {
    "\\d": ("Relations", _RELATIONS, ["r", "v", "S"]),
    "\\dt": ("Tables", _RELATIONS, ["r"]),
    "\\di": ("Indexes", _RELATIONS, ["i"]),
    "\\dv": ("Views", _RELATIONS, ["v"]),
    "\\ds": ("Sequences", _RELATIONS, ["S"]),
    "\\l": (
        "Databases",
        'SELECT datname AS "Name", pg_get_userbyid(datdba) AS "Owner" FROM pg_catalog.pg_database ORDER BY 1',
        None,
    ),
    "\\dn": (
        "Schemas",
        'SELECT nspname AS "Name", pg_catalog.pg_get_userbyid(nspowner) AS "Owner" FROM pg_catalog.pg_namespace '
        "WHERE nspname NOT LIKE 'pg\\_%%' AND nspname <> 'information_schema' ORDER BY 1",
        None,
    ),
    "\\du": (
        "Roles",
        'SELECT rolname AS "Name", rolsuper AS "Superuser", rolcanlogin AS "Login" FROM pg_catalog.pg_roles ORDER BY 1',
        None,
    ),
}


def describe(
    connection: psycopg.Connection[tuple[object, ...]], command: str, argument: str
) -> Iterator[Answer]:
    """(title, column names, rows) of each table that answers a command."""
    title, query, kinds = COMMANDS[command]
    if argument:
        for part, statement in (
            ("", _COLUMNS),
            ("Indexes", _INDEXES),
            ("Constraints", _CONSTRAINTS),
        ):
            answer = _ask(connection, part or f'"{argument}"', statement, [argument])
            if answer[2] or not part:
                yield answer
        return
    yield _ask(connection, title, query, [kinds] if kinds is not None else [])


def _ask(
    connection: psycopg.Connection[tuple[object, ...]],
    title: str,
    query: str,
    params: Sequence[object],
) -> Answer:
    with connection.cursor() as cursor:
        cursor.execute(query.encode(), params)
        assert cursor.description is not None, "a query has columns"
        names = [column.name for column in cursor.description]
        return (
            title,
            names,
            [["" if v is None else str(v) for v in row] for row in cursor.fetchall()],
        )
