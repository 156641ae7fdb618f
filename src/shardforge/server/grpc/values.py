"""Values between gRPC's messages and SQL: parameters as the wire protocol's bytes, rows as typed values.

Parameters take the way of PostgreSQL's Bind, so that what is refused there is refused here, in the same words.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shardforge.errors import QueryError
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.session.settings import Settings
from shardforge.sql.types import oids
from shardforge.sql.types.registry import format_type, output_function
from shardforge.v1 import database_pb2 as pb

TypeNamed = Callable[[str], int]
"""The oid of a type by its name; raises QueryError 42704."""
Maker = Callable[[Any], pb.Value]

_TEXT, _BINARY = 0, 1
_INTEGERS = (oids.INT2, oids.INT4, oids.INT8, oids.OID)
_FLOATS = (oids.FLOAT4, oids.FLOAT8)
_TEXTS = (oids.TEXT, oids.VARCHAR, oids.BPCHAR, oids.NAME, oids.UNKNOWN, oids.JSON)
_INT4 = range(-(1 << 31), 1 << 31)
NULL = pb.Value(null_value=pb.NULL_VALUE)
_ROWS = pb.QueryResult.ROWS_FIELD_NUMBER


class Parameters(NamedTuple):
    """What Parse and Bind would have been given."""

    types: tuple[int, ...]
    """0: whatever the statement makes of it."""
    values: list[bytes | None]
    formats: tuple[int, ...]


def parameters_of(values: Sequence[pb.Value], type_named: TypeNamed) -> Parameters:
    """The parameters of a request. Raises QueryError."""
    found = [_parameter(value, type_named) for value in values]
    types = tuple(oid for oid, _, _ in found)
    return Parameters(
        types if any(types) else (),
        [raw for _, raw, _ in found],
        tuple(form for _, _, form in found),
    )


def _parameter(value: pb.Value, type_named: TypeNamed) -> tuple[int, bytes | None, int]:
    match value.WhichOneof("kind"):
        case "bool_value":
            return oids.BOOL, b"t" if value.bool_value else b"f", _TEXT
        case "int64_value":
            number = value.int64_value
            return oids.INT4 if number in _INT4 else oids.INT8, b"%d" % number, _TEXT
        case "double_value":
            return oids.FLOAT8, struct.pack(">d", value.double_value), _BINARY
        case "string_value":
            return 0, value.string_value.encode(), _TEXT
        case "bytes_value":
            return oids.BYTEA, value.bytes_value, _BINARY
        case "typed_value":
            typed = value.typed_value
            if not typed.type:
                raise QueryError("a typed value needs the name of its type", "22023")
            return type_named(typed.type), typed.text.encode(), _TEXT
    return 0, None, _TEXT


def columns_of(columns: Sequence[OutputColumn], settings: Settings) -> list[pb.Column]:
    """The description of a result's columns."""
    name = format_type if settings.catalog is None else settings.catalog.format_type
    return [pb.Column(name=c.name, type=name(c.type, c.typmod), type_oid=c.type) for c in columns]


def _maker(oid: int, settings: Settings) -> Maker:
    """The function from a value of the type, not NULL, to a message."""
    if oid in _INTEGERS:
        return lambda value: pb.Value(int64_value=value)
    if oid in _TEXTS:
        return lambda value: pb.Value(string_value=value)
    if oid == oids.BOOL:
        return lambda value: pb.Value(bool_value=value)
    if oid in _FLOATS:
        return lambda value: pb.Value(double_value=value)
    if oid == oids.BYTEA:
        return lambda value: pb.Value(bytes_value=value)
    output = output_function(oid, settings)
    return lambda value: pb.Value(string_value=output(value))


class ResultWriter:
    """Makes the bytes of a QueryResult, row by row: as a tree of messages a large one would take long to pack."""

    def __init__(self, columns: Sequence[OutputColumn], settings: Settings, budget: Budget) -> None:
        self.count = 0
        self._makers = [_maker(column.type, settings) for column in columns]
        self._budget = budget
        self._pieces = [pb.QueryResult(columns=columns_of(columns, settings)).SerializeToString()]
        budget.spend(len(self._pieces[0]))

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Take in rows. Raises QueryError 54000 when they are too large."""
        makers, size, pieces = self._makers, 0, self._pieces
        for row in rows:
            values = [NULL if v is None else make(v) for v, make in zip(row, makers, strict=True)]
            piece = delimited(_ROWS, pb.Row(values=values).SerializeToString())
            size += len(piece)
            pieces.append(piece)
        self.count += len(rows)
        self._budget.spend(size)

    def finish(self, tag: str) -> bytes:
        """The whole result."""
        return b"".join([*self._pieces, tail_of(tag)])


def tail_of(tag: str) -> bytes:
    """The end of a QueryResult: all of one without rows."""
    last = tag.rpartition(" ")[2]
    affected = int(last) if last.isdigit() else 0
    return bytes(pb.QueryResult(command_tag=tag, rows_affected=affected).SerializeToString())


def delimited(field: int, message: bytes) -> bytes:
    """A message as a field of another. Source: protobuf's encoding, length-delimited records."""
    head, size = bytearray([field << 3 | 2]), len(message)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + message


class Budget:
    """How much results may still hold."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._left = bytes_max

    def spend(self, size: int) -> None:
        """Raises QueryError 54000 when that is more than there is."""
        self._left -= size
        if self._left < 0:
            raise QueryError(
                f"the result is larger than {self._bytes_max} bytes", "54000",
                detail="The statement was not carried out.",
                hint="Ask for fewer rows, raise max_result_bytes, or use a PostgreSQL driver, which has no limit.",
            )  # fmt: skip
