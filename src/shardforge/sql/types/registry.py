"""Every SQL type by oid and name, and the way its values are read, written, ordered and cut to length.

How a family of types joins: its module of this package holds `CODECS: tuple[Codec, ...]` (see `base.Codec`), and
its name and oids stand in `_FAMILIES` below. A family module is imported when one of its types is first used. Array
types need no entry: `array.array_codec(array_type, element_codec)` makes their codec from their element's.

Enum types are what their oids say (`keys.ENUM_OIDS`): here they have names only as stored text spells them, and what
they are called and which labels they have is for the catalog of a session to say (`TypeSettings.catalog`).

Constants in capitals are `SqlType` objects; `oids` has the same names as integers. A type that exists in PostgreSQL
and has no codec can be named, but reading, writing or storing it is refused (0A000).
Source: PostgreSQL 15, pg_type and src/backend/utils/adt/format_type.c.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.keys import ENUM_OIDS, element_of
from shardforge.sql import pgdata
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Coercion, Input, Output, SqlType, TypeSettings

_FAMILIES: dict[str, tuple[int, ...]] = {
    "boolean": (oids.BOOL,),
    "integers": (
        oids.INT2, oids.INT4, oids.INT8, oids.OID, oids.XID, oids.CID, oids.XID8, oids.REGPROC, oids.REGPROCEDURE,
        oids.REGOPER, oids.REGOPERATOR, oids.REGCLASS, oids.REGTYPE, oids.REGCONFIG, oids.REGDICTIONARY,
        oids.REGNAMESPACE, oids.REGROLE, oids.REGCOLLATION, oids.INT2VECTOR, oids.OIDVECTOR,
    ),
    "floats": (oids.FLOAT4, oids.FLOAT8),
    "numeric": (oids.NUMERIC,),
    "strings": (
        oids.TEXT, oids.VARCHAR, oids.BPCHAR, oids.NAME, oids.CHAR, oids.UNKNOWN, oids.CSTRING, oids.REFCURSOR,
        oids.PG_NODE_TREE, oids.ACLITEM,
    ),
    "binary": (oids.BYTEA, oids.UUID),
    "record": (oids.RECORD, oids.VOID),
    "datetime": (oids.DATE, oids.TIME, oids.TIMETZ, oids.TIMESTAMP, oids.TIMESTAMPTZ),
    "interval": (oids.INTERVAL,),
    "json": (oids.JSON, oids.JSONB, oids.JSONPATH),
}  # fmt: skip

_HOME = {oid: module for module, members in _FAMILIES.items() for oid in members}

_TYPES: dict[int, SqlType] = {
    row.oid: SqlType(
        row.oid, row.typname, row.display, row.typlen, row.typcategory, row.typispreferred,
        row.typelem, row.typarray, row.typtype,
    )
    for row in pgdata.types()
}  # fmt: skip
_NAMED = {t.name: t for t in _TYPES.values()}

STORED_ENUM = "pg_catalog.enum_"
"""How stored text, which outlives renames, spells an enum type: this and its oid."""
FIRST_ROW_TYPE = 16384
"""Types from this oid on are the row types of tables and views: records whose fields the catalog knows."""

BOOL = _TYPES[oids.BOOL]
BYTEA = _TYPES[oids.BYTEA]
CHAR = _TYPES[oids.CHAR]
NAME = _TYPES[oids.NAME]
INT8 = _TYPES[oids.INT8]
INT2 = _TYPES[oids.INT2]
INT2VECTOR = _TYPES[oids.INT2VECTOR]
INT4 = _TYPES[oids.INT4]
REGPROC = _TYPES[oids.REGPROC]
TEXT = _TYPES[oids.TEXT]
OID = _TYPES[oids.OID]
XID = _TYPES[oids.XID]
CID = _TYPES[oids.CID]
OIDVECTOR = _TYPES[oids.OIDVECTOR]
JSON = _TYPES[oids.JSON]
FLOAT4 = _TYPES[oids.FLOAT4]
FLOAT8 = _TYPES[oids.FLOAT8]
UNKNOWN = _TYPES[oids.UNKNOWN]
BPCHAR = _TYPES[oids.BPCHAR]
VARCHAR = _TYPES[oids.VARCHAR]
DATE = _TYPES[oids.DATE]
TIME = _TYPES[oids.TIME]
TIMESTAMP = _TYPES[oids.TIMESTAMP]
TIMESTAMPTZ = _TYPES[oids.TIMESTAMPTZ]
INTERVAL = _TYPES[oids.INTERVAL]
TIMETZ = _TYPES[oids.TIMETZ]
BIT = _TYPES[oids.BIT]
VARBIT = _TYPES[oids.VARBIT]
NUMERIC = _TYPES[oids.NUMERIC]
REGPROCEDURE = _TYPES[oids.REGPROCEDURE]
REGOPER = _TYPES[oids.REGOPER]
REGOPERATOR = _TYPES[oids.REGOPERATOR]
REGCLASS = _TYPES[oids.REGCLASS]
REGTYPE = _TYPES[oids.REGTYPE]
REGNAMESPACE = _TYPES[oids.REGNAMESPACE]
REGROLE = _TYPES[oids.REGROLE]
RECORD = _TYPES[oids.RECORD]
CSTRING = _TYPES[oids.CSTRING]
ANY = _TYPES[oids.ANY]
ANYARRAY = _TYPES[oids.ANYARRAY]
ANYELEMENT = _TYPES[oids.ANYELEMENT]
VOID = _TYPES[oids.VOID]
INTERNAL = _TYPES[oids.INTERNAL]
UUID = _TYPES[oids.UUID]
JSONB = _TYPES[oids.JSONB]


def all_types() -> tuple[SqlType, ...]:
    """Every type, by oid."""
    return tuple(_TYPES.values())


def find_type(oid: int) -> SqlType | None:
    """The type with this oid, if it is one of PostgreSQL's own, an enum or an array of enums."""
    return _enum_type(oid) if oid in ENUM_OIDS else _TYPES.get(oid)


@cache
def _enum_type(oid: int) -> SqlType:
    element = element_of(oid)
    if element:
        name = f"_enum_{element}"
        return SqlType(
            oid, name, _enum_type(element).display + "[]", -1, "A", False, element, 0, "b"
        )
    return SqlType(oid, f"enum_{oid}", f"{STORED_ENUM}{oid}", 4, "E", False, 0, oid + 1, "e")


def stored_enum(name: str) -> SqlType | None:
    """The enum that stored text means by a name in pg_catalog: enum_ and its oid."""
    digits = name.removeprefix("enum_")
    known = digits != name and digits.isdecimal() and int(digits) in ENUM_OIDS
    return _enum_type(int(digits)) if known else None


def type_by_oid(oid: int) -> SqlType:
    """The type with this oid, a record for row types of tables; 42704 when there is none."""
    found = find_type(oid)
    if found is None:
        if oid >= FIRST_ROW_TYPE:
            return RECORD
        raise QueryError(f"type with OID {oid} does not exist", "42704")
    return found


def type_named(name: str) -> SqlType | None:
    """The type with this internal name (int4, not integer)."""
    return _NAMED.get(name)


def array_of(element: SqlType) -> SqlType | None:
    """The array type over `element`."""
    return find_type(element.array)


def is_array(oid: int) -> bool:
    """Whether the type is a true array (not int2vector, not a fixed-length pair such as point)."""
    found = find_type(oid)
    return found is not None and found.element != 0 and type_by_oid(found.element).array == oid


@cache
def codec(oid: int) -> Codec:
    """How values of the type are handled; 0A000 for a type that is not supported."""
    sql_type = type_by_oid(oid)
    made: Codec
    if is_array(oid):
        module = import_module("shardforge.sql.types.array")
        made = module.array_codec(sql_type, codec(sql_type.element))
        return made
    if sql_type.kind == "e":
        made = import_module("shardforge.sql.types.enums").enum_codec(oid)
        return made
    home = _HOME.get(sql_type.oid)
    if home is None:
        raise unsupported(f"type {sql_type.display}")
    family: tuple[Codec, ...] = import_module(f"shardforge.sql.types.{home}").CODECS
    return next(member for member in family if member.oid == sql_type.oid)


def supported(oid: int) -> bool:
    """Whether values of the type can be read, written and stored."""
    found = find_type(oid)
    if found is None:
        return False
    return oid in _HOME or found.kind == "e" or (is_array(oid) and supported(found.element))


def input_function(oid: int, settings: TypeSettings) -> Input:
    """Text to value; the function raises 22P02, 22003, 22007 or 22008 in PostgreSQL's words."""
    return codec(oid).input(settings)


def output_function(oid: int, settings: TypeSettings) -> Output:
    """Value to text."""
    return codec(oid).output(settings)


def receive_function(oid: int, settings: TypeSettings) -> Callable[[bytes], Any]:
    """Binary form to value."""
    return codec(oid).receive(settings)


def send_function(oid: int, settings: TypeSettings) -> Callable[[Any], bytes]:
    """Value to binary form."""
    return codec(oid).send(settings)


def sort_key(oid: int) -> Callable[[Any], Any] | None:
    """Value to a hashable key in PostgreSQL's order; None when the value itself is one."""
    return codec(oid).sort_key


@lru_cache(maxsize=4096)
def coercion(oid: int, typmod: int, explicit: bool) -> Coercion | None:
    """The length coercion for a modifier, compiled; None when there is nothing to do."""
    if typmod < 0:
        return None
    make = codec(oid).coercion
    return None if make is None else make(typmod, explicit)


def apply_typmod(oid: int, typmod: int, value: Any, explicit: bool) -> Any:
    """`value` under a modifier: an explicit cast truncates where an assignment fails."""
    apply = coercion(oid, typmod, explicit)
    return value if apply is None or value is None else apply(value)


def typmod_in(oid: int, numbers: list[int]) -> int:
    """The typmod for the numbers in parentheses after a type's name."""
    make = codec(oid).typmod_in
    if make is None:
        raise QueryError(
            f'type modifier is not allowed for type "{type_by_oid(oid).name}"', "42601"
        )
    return make(numbers)


def format_type(oid: int, typmod: int | None = -1) -> str:
    """The type's SQL name with its modifier, for instance numeric(10,2) or timestamp(3) without time zone."""
    if oid == 0:
        return "-"
    sql_type = find_type(oid)
    if sql_type is None:
        return "???"
    if is_array(oid):
        return format_type(sql_type.element, typmod) + "[]"
    if typmod is None:
        return sql_type.display
    if oid == oids.BPCHAR and typmod < 0:
        return "bpchar"
    if typmod < 0 or oid not in _HOME:
        return sql_type.display
    described = codec(oid)
    if described.display is not None:
        return described.display(typmod)
    return sql_type.display + (described.typmod_out(typmod) if described.typmod_out else "")
