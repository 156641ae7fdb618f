"""Literals of the reg* types: names of tables, types, functions and so on, looked up when they are bound.

Source: PostgreSQL 15, src/backend/utils/adt/regproc.c.
"""

from __future__ import annotations

from collections.abc import Callable

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.bind.scope import Shared
from shardforge.sql.parse import parse_type_name
from shardforge.sql.types import oids


def split_name(text: str) -> list[str]:
    """The parts of a possibly qualified, possibly quoted name. Raises 42602 for what is not one."""
    parts: list[str] = []
    i = 0
    text = text.strip()
    while True:
        if i < len(text) and text[i] == '"':
            part, i = _quoted(text, i)
        else:
            start = i
            while i < len(text) and text[i] not in '."' and not text[i].isspace():
                i += 1
            part = text[start:i].lower()
        if not part:
            raise QueryError("invalid name syntax", "42602")
        parts.append(part)
        while i < len(text) and text[i].isspace():
            i += 1
        if i == len(text):
            return parts
        if text[i] != ".":
            raise QueryError("invalid name syntax", "42602")
        i += 1
        while i < len(text) and text[i].isspace():
            i += 1


def _quoted(text: str, i: int) -> tuple[str, int]:
    out = []
    i += 1
    while True:
        end = text.find('"', i)
        if end < 0:
            raise QueryError("invalid name syntax", "42602")
        out.append(text[i:end])
        i = end + 1
        if not text.startswith('"', i):
            return "".join(out), i
        out.append('"')
        i += 1


def _relation(shared: Shared, text: str) -> int:
    parts = split_name(text)
    if len(parts) == 3:
        if parts[0] != shared.catalog.database.name:
            raise QueryError(
                f'cross-database references are not implemented: "{".".join(parts)}"', "0A000"
            )
        parts = parts[1:]
    if len(parts) > 3:
        raise QueryError(
            f"improper relation name (too many dotted names): {'.'.join(parts)}", "42601"
        )
    schema = parts[0] if len(parts) == 2 else None
    found = shared.catalog.relation(schema, parts[-1], shared.env.search_path)
    if found is None:
        raise QueryError(f'relation "{".".join(parts)}" does not exist', "42P01")
    return found.id


def _type(shared: Shared, text: str) -> int:
    from shardforge.sql.bind.typenames import type_of_node

    shared.silent += 1
    try:
        return type_of_node(shared, parse_type_name(text))[0]
    finally:
        shared.silent -= 1


def _only_function(text: str) -> pgdata.ProcRow:
    parts = split_name(text)
    found = pgdata.procs_named(parts[-1]) if parts[:-1] in ([], ["pg_catalog"]) else ()
    if not found:
        raise QueryError(f'function "{text}" does not exist', "42883")
    if len(found) > 1:
        raise QueryError(f'more than one function named "{text}"', "42725")
    return found[0]


def _procedure(shared: Shared, text: str) -> int:
    name, paren, rest = text.partition("(")
    if not paren or not rest.rstrip().endswith(")"):
        raise QueryError("expected a left parenthesis", "22P02")
    inner = rest.rstrip()[:-1].strip()
    types = tuple(_type(shared, part) for part in inner.split(",")) if inner else ()
    for row in pgdata.procs_named(split_name(name)[-1]):
        if row.proargtypes == types:
            return row.oid
    raise QueryError(f'function "{text}" does not exist', "42883")


def _operator(shared: Shared, text: str) -> int:
    found = pgdata.operators_named(text.rpartition(".")[2])
    if not found:
        raise QueryError(f"operator does not exist: {text}", "42883")
    if len(found) > 1:
        raise QueryError(f"more than one operator named {text}", "42725")
    return found[0].oid


def _operator_with_types(shared: Shared, text: str) -> int:
    name, _, rest = text.partition("(")
    wanted = tuple(
        0 if part.strip().lower() == "none" else _type(shared, part)
        for part in rest.rstrip().removesuffix(")").split(",")
    )
    for row in pgdata.operators_named(name.strip().rpartition(".")[2]):
        if (row.oprleft, row.oprright) == wanted:
            return row.oid
    raise QueryError(f"operator does not exist: {text}", "42883")


def _schema(shared: Shared, text: str) -> int:
    parts = split_name(text)
    found = shared.catalog.schema_by_name(parts[0]) if len(parts) == 1 else None
    if found is None:
        raise QueryError(f'schema "{parts[0]}" does not exist', "3F000")
    return found.id


def _role(shared: Shared, text: str) -> int:
    parts = split_name(text)
    found = shared.catalog.role_named(parts[0]) if len(parts) == 1 else None
    if found is None:
        raise QueryError(f'role "{parts[0]}" does not exist', "42704")
    return found.id


_LOOKUPS: dict[int, Callable[[Shared, str], int]] = {
    oids.REGCLASS: _relation,
    oids.REGTYPE: _type,
    oids.REGPROC: lambda shared, text: _only_function(text).oid,
    oids.REGPROCEDURE: _procedure,
    oids.REGOPER: _operator,
    oids.REGOPERATOR: _operator_with_types,
    oids.REGNAMESPACE: _schema,
    oids.REGROLE: _role,
}


def lookup_reg_literal(shared: Shared, target: int, text: str) -> int:
    """The oid that a reg* literal means: a number as it is, '-' for none, else a name."""
    if text == "-":
        return 0
    if text.isascii() and text.isdigit():
        return int(text)
    lookup = _LOOKUPS.get(target)
    if lookup is None:
        raise QueryError("text search and collation names are not supported", "0A000")
    return lookup(shared, text)
