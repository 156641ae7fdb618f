"""What a SQL type is, and what a family of types declares: the seam between the registry and the families.

A family is one module of this package (`integers`, `floats`, `datetime`, `json`, ...) with a tuple `CODECS`, one
`Codec` per type. The registry collects them; nothing else knows how a value looks as text, in PostgreSQL's binary
form, or under a type modifier. The registry imports families when they are first used, so they may import it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from shardforge.errors import QueryError


@dataclass(frozen=True, slots=True, eq=False)
class SqlType:
    """One row of pg_type. There is one object per oid, so identity is equality."""

    oid: int
    name: str
    """pg_type.typname, for instance int4."""
    display: str
    """format_type without a modifier, for instance integer."""
    length: int
    """typlen: -1 for variable length."""
    category: str
    """typcategory."""
    preferred: bool
    element: int
    """The element type's oid (typelem) or 0."""
    array: int
    """The oid of the array over this type, or 0."""
    kind: str
    """typtype: b base, p pseudo, r range, m multirange, c composite, e enum."""


class TypeSettings(Protocol):
    """The session's settings that text formats depend on.

    Those of a session have a `catalog` too, its CatalogFunctions as of now, for names of objects and labels of enums.
    """

    timezone: str
    datestyle: str
    intervalstyle: str
    extra_float_digits: int
    bytea_output: str


Input: TypeAlias = Callable[[str], Any]
Output: TypeAlias = Callable[[Any], str]
Receive: TypeAlias = Callable[[bytes], Any]
Send: TypeAlias = Callable[[Any], bytes]
Coercion: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type are read, written, ordered and cut to a modifier.

    `input`, `output`, `receive` and `send` take the settings and give the function, so that a settings-free type costs
    one call a value: wrap its function in `plain`. `sort_key` is None when Python's order and equality of the values
    are PostgreSQL's. `coercion(typmod, explicit)` gives the length coercion: explicit casts truncate where an
    assignment fails. `typmod_in` turns the numbers in parentheses into a typmod, `typmod_out` a typmod into them.
    `display(typmod)` is for types whose modifier stands inside the name.
    """

    oid: int
    input: Callable[[TypeSettings], Input]
    output: Callable[[TypeSettings], Output]
    receive: Callable[[TypeSettings], Receive]
    send: Callable[[TypeSettings], Send]
    sort_key: Callable[[Any], Any] | None = None
    coercion: Callable[[int, bool], Coercion] | None = None
    typmod_in: Callable[[list[int]], int] | None = None
    typmod_out: Callable[[int], str] | None = None
    display: Callable[[int], str] | None = None


def plain(function: Callable[..., Any]) -> Callable[[TypeSettings], Callable[..., Any]]:
    """`function` for every session: it depends on no setting."""
    return lambda _settings: function


def invalid_input(type_name: str, text: str) -> QueryError:
    """22P02, as every input function words it."""
    return QueryError(f'invalid input syntax for type {type_name}: "{text}"', "22P02")


def cut_short() -> QueryError:
    """08P01: a binary value ends before it should."""
    return QueryError("insufficient data left in message", "08P01")


def unpacker(layout: str) -> Callable[[bytes], tuple[Any, ...]]:
    """The fields of a binary value of one fixed layout; 08P01 for fewer bytes, 22P03 for more."""
    packed = struct.Struct(layout)

    def unpack(data: bytes) -> tuple[Any, ...]:
        if len(data) < packed.size:
            raise cut_short()
        if len(data) > packed.size:
            raise bad_binary()
        return packed.unpack(data)

    return unpack


def bad_binary(message: str = "incorrect binary data format") -> QueryError:
    """22P03: the bytes are not this type's binary form."""
    return QueryError(message, "22P03")
