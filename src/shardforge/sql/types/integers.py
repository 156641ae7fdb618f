"""Integers, and the types that are stored as integers: oid, xid, cid, xid8 and the reg* names of objects.

Names of functions and types are looked up in PostgreSQL's own catalogs; names of relations, schemas and roles need
the database's catalog, which the settings may carry as an attribute `catalog` (with `regclass_out(oid)` and so on):
without it such a value is read and written as a number, and a name is refused.
Source: PostgreSQL 15, src/backend/utils/adt/{numutils,int,int8,oid,xid,regproc}.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql import pgdata
from shardforge.sql.types import oids
from shardforge.sql.types.base import (
    Codec,
    Input,
    Output,
    TypeSettings,
    cut_short,
    invalid_input,
    plain,
    unpacker,
)
from shardforge.sql.types.boolean import WHITESPACE
from shardforge.sql.types.values import Array

_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")


def integer_parser(name: str, low: int, high: int) -> Callable[[str], int]:
    """The input function of an integer type called `name`."""
    surely_in_range = len(str(high)) - 1

    def parse(text: str) -> int:
        if (
            len(text) <= surely_in_range
            and text.isascii()
            and (text.isdigit() or (text[1:].isdigit() and text[0] == "-"))
        ):
            return int(text)
        match = _INTEGER.fullmatch(text)
        if match is None:
            raise invalid_input(name, text)
        digits = match[1]
        if len(digits) > 40:
            digits = re.sub(r"^([+-]?)0+(?=[0-9])", r"\1", digits)
        value = int(digits) if len(digits) <= 40 else high + 1
        if not low <= value <= high:
            raise QueryError(f'value "{text}" is out of range for type {name}', "22003")
        return value

    return parse


parse_int2 = integer_parser("smallint", -(2**15), 2**15 - 1)
parse_int4 = integer_parser("integer", -(2**31), 2**31 - 1)
parse_int8 = integer_parser("bigint", -(2**63), 2**63 - 1)


def _unsigned_parser(name: str, bits: int) -> Callable[[str], int]:
    parse_signed = integer_parser(name, -(2 ** (bits - 1)), 2**bits - 1)
    return lambda text: parse_signed(text) % 2**bits  # -1 wraps, as strtoul does


def _binary(layout: str) -> tuple[Callable[[bytes], int], Callable[[int], bytes]]:
    unpack = unpacker(layout)

    def receive(data: bytes) -> int:
        value: int = unpack(data)[0]
        return value

    return receive, struct.Struct(layout).pack


def _integer_codec(oid: int, parse: Callable[[str], int], layout: str) -> Codec:
    receive, send = _binary(layout)
    return Codec(oid, plain(parse), plain(str), plain(receive), plain(send))


# ---------------------------------------------------------------- names of objects


def regproc_text(oid: int) -> str:
    """regprocout: the bare name when it is not overloaded, else with its schema."""
    proc = pgdata.proc_by_oid(oid)
    if proc is None:
        return "-" if oid == 0 else str(oid)
    alone = len(pgdata.procs_named(proc.proname)) == 1
    return proc.proname if alone else f"pg_catalog.{proc.proname}"


def regprocedure_text(oid: int) -> str:
    """regprocedureout: the name with its argument types."""
    from shardforge.sql.types.registry import format_type

    proc = pgdata.proc_by_oid(oid)
    if proc is None:
        return "-" if oid == 0 else str(oid)
    return f"{proc.proname}({','.join(format_type(t, None) for t in proc.proargtypes)})"


def regoper_text(oid: int) -> str:
    """regoperout: the bare name when it is not overloaded, else with its schema."""
    operator = pgdata.operator_by_oid(oid)
    if operator is None:
        return str(oid)
    alone = len(pgdata.operators_named(operator.oprname)) == 1
    return operator.oprname if alone else f"pg_catalog.{operator.oprname}"


def regoperator_text(oid: int) -> str:
    """regoperatorout: the name with its operand types."""
    from shardforge.sql.types.registry import format_type

    operator = pgdata.operator_by_oid(oid)
    if operator is None:
        return str(oid)
    left = format_type(operator.oprleft, None) if operator.oprleft else "NONE"
    return f"{operator.oprname}({left},{format_type(operator.oprright, None)})"


def regproc_named(name: str) -> int:
    """regprocin: the one function with this name."""
    found = pgdata.procs_named(name.removeprefix("pg_catalog."))
    if not found:
        raise QueryError(f'function "{name}" does not exist', "42883")
    if len(found) > 1:
        raise QueryError(f'more than one function named "{name}"', "42725")
    return found[0].oid


def regtype_text(oid: int) -> str:
    """regtypeout."""
    from shardforge.sql.types.registry import find_type, format_type

    return format_type(oid, None) if oid == 0 or find_type(oid) else str(oid)


def regtype_named(name: str) -> int:
    """regtypein for PostgreSQL's own types, by internal or SQL name."""
    from shardforge.sql.types.registry import all_types

    bare = name.removeprefix("pg_catalog.")
    for candidate in all_types():
        if bare == candidate.name or bare.lower() == candidate.display:
            return candidate.oid
    raise QueryError(f'type "{name}" does not exist', "42704")


_BUILT_IN_TEXT: dict[str, Callable[[int], str]] = {
    "regproc": regproc_text,
    "regprocedure": regprocedure_text,
    "regoper": regoper_text,
    "regoperator": regoperator_text,
    "regtype": regtype_text,
}
_BUILT_IN_NAMES: dict[str, Callable[[str], int]] = {
    "regproc": regproc_named,
    "regtype": regtype_named,
}
_parse_oid = _unsigned_parser("oid", 32)


def _reg_codec(oid: int, name: str) -> Codec:
    receive, send = _binary("!I")

    def reader(settings: TypeSettings) -> Input:
        catalog = getattr(settings, "catalog", None)
        by_name: Callable[[str], int] | None = getattr(catalog, f"{name}_in", None)

        def parse(text: str) -> int:
            stripped = text.strip(WHITESPACE)
            if stripped == "-":
                return 0
            if stripped.isdigit():
                return _parse_oid(stripped)
            if by_name is not None:
                return by_name(stripped)
            built_in = _BUILT_IN_NAMES.get(name)
            if built_in is not None:
                return built_in(stripped)
            raise unsupported(f"a name as input of type {name}")

        return parse

    def writer(settings: TypeSettings) -> Output:
        catalog = getattr(settings, "catalog", None)
        by_oid: Output | None = getattr(catalog, f"{name}_out", None) or _BUILT_IN_TEXT.get(name)
        return by_oid or (lambda value: str(value) if value else "-")

    return Codec(oid, reader, writer, plain(receive), plain(send))


# ---------------------------------------------------------------- vectors of the catalogs


def _vector_codec(oid: int, element: int, layout: str, parse: Callable[[str], int]) -> Codec:
    receive_one, send_one = _binary(layout)
    width = struct.calcsize(layout)

    def read(text: str) -> Array:
        values = tuple(parse(part) for part in text.split())
        return Array(values, (len(values),), (0,))

    def write(value: Any) -> str:
        return " ".join(map(str, value))

    def receive(data: bytes) -> Array:
        if len(data) < 20:
            raise cut_short()
        _, _, _, count, lower = struct.unpack_from("!iiIii", data)
        step = 4 + width
        values = tuple(
            receive_one(data[at + 4 : at + step]) for at in range(20, 20 + count * step, step)
        )
        return Array(values, (count,), (lower,))

    def send(value: Any) -> bytes:
        parts = [struct.pack("!iiIii", 1, 0, element, len(value), 0)]
        parts += (struct.pack("!i", width) + send_one(item) for item in value)
        return b"".join(parts)

    return Codec(oid, plain(read), plain(write), plain(receive), plain(send), sort_key=tuple)


CODECS = (
    _integer_codec(oids.INT2, parse_int2, "!h"),
    _integer_codec(oids.INT4, parse_int4, "!i"),
    _integer_codec(oids.INT8, parse_int8, "!q"),
    _integer_codec(oids.OID, _parse_oid, "!I"),
    _integer_codec(oids.XID, _unsigned_parser("xid", 32), "!I"),
    _integer_codec(oids.CID, _unsigned_parser("cid", 32), "!I"),
    _integer_codec(oids.XID8, _unsigned_parser("xid8", 64), "!Q"),
    _reg_codec(oids.REGPROC, "regproc"),
    _reg_codec(oids.REGPROCEDURE, "regprocedure"),
    _reg_codec(oids.REGOPER, "regoper"),
    _reg_codec(oids.REGOPERATOR, "regoperator"),
    _reg_codec(oids.REGCLASS, "regclass"),
    _reg_codec(oids.REGTYPE, "regtype"),
    _reg_codec(oids.REGCONFIG, "regconfig"),
    _reg_codec(oids.REGDICTIONARY, "regdictionary"),
    _reg_codec(oids.REGNAMESPACE, "regnamespace"),
    _reg_codec(oids.REGROLE, "regrole"),
    _reg_codec(oids.REGCOLLATION, "regcollation"),
    _vector_codec(oids.INT2VECTOR, oids.INT2, "!h", parse_int2),
    _vector_codec(oids.OIDVECTOR, oids.OID, "!I", _parse_oid),
)
