"""Rows as bytes, by schema version. PURE.

    layout:2  null bitmap  fixed-width columns  end:4 per variable column  variable bytes

All of it but the variable bytes is one `struct`. A table's layouts are numbered from 0 in the order in which
ALTER TABLE made them; a row names the layout that it was written with, and is read as the newest one:
columns are matched by id, those that the row's layout lacks take their `missing` value (the default at
the time when the column was added), and those that the newest layout lacks are skipped.

An end is an offset in the row. A null's fixed place holds zeros and its variable part is empty.
Invariant: decode(encode(row)) equals the row, numeric scale and array bounds included.
Cost: four columns encode in 0.9 us and decode in 1 us; one fixed column is read in 0.3 us.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from shardforge.errors import StorageError
from shardforge.storage.valuecodec import (
    Convert,
    Fixed,
    Variable,
    filler,
    fixed,
    null_bitmap,
    variable,
)

Columns = Sequence[tuple[int, int]]
"""(column id, type oid) in attribute order."""
Row = tuple[Any, ...]
Encoder = Callable[[Sequence[Any]], bytes]
Decoder = Callable[[bytes], Row]

LAYOUTS_MAX: Final = 1 << 16
_LAYOUT: Final = struct.Struct("<H")


def _picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], Row]:
    """A function from a sequence to the tuple of its items at `positions`."""
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        only = positions[0]
        return lambda values: (values[only],)
    return itemgetter(*positions)


class _Layout(NamedTuple):
    """One schema version: the order of places in its rows."""

    number: int
    columns: Columns
    fixed: dict[int, Fixed]
    """By position in the row, in the order of their places."""
    variable: dict[int, Variable]
    bitmap_size: int
    header: struct.Struct


def _layout(number: int, columns: Columns) -> _Layout:
    widths: dict[int, Fixed] = {}
    variables: dict[int, Variable] = {}
    for position, (_, oid) in enumerate(columns):
        width = fixed(oid)
        if width is None:
            variables[position] = variable(oid)
        else:
            widths[position] = width
    bitmap_size = (len(columns) + 7) // 8
    codes = "".join([width.code for width in widths.values()])
    header = struct.Struct(f"<H{bitmap_size}s{codes}{'I' * len(variables)}")
    return _Layout(number, columns, widths, variables, bitmap_size, header)


# ---- encoding ------------------------------------------------------------------------------------


def _encoder(layout: _Layout) -> Encoder:
    pack, number = layout.header.pack, layout.number
    header_size, bitmap_size = layout.header.size, layout.bitmap_size
    no_nulls = bytes(bitmap_size)
    count = len(layout.columns)
    fixed_of = _picker(list(layout.fixed))
    places_of = [
        (place, width.to_packed, filler(width)) for place, width in enumerate(layout.fixed.values())
    ]
    conversions = [(place, convert) for place, convert, _ in places_of if convert is not None]
    variables = [(position, codec.encode) for position, codec in layout.variable.items()]

    def encode_nulls(values: Sequence[Any]) -> bytes:
        places = list(fixed_of(values))
        for place, to_packed, null in places_of:
            if places[place] is None:
                places[place] = null
            elif to_packed is not None:
                places[place] = to_packed(places[place])
        parts = []
        end = header_size
        for position, encode_value in variables:
            value = values[position]
            part = b"" if value is None else encode_value(value)
            parts.append(part)
            end += len(part)
            places.append(end)
        bitmap = null_bitmap(values).to_bytes(bitmap_size, "little")
        return pack(number, bitmap, *places) + b"".join(parts)

    def encode(values: Sequence[Any]) -> bytes:
        assert len(values) == count, "a row has a value for each column"
        if None in values:
            return encode_nulls(values)
        places = [*fixed_of(values)]
        for place, to_packed in conversions:
            places[place] = to_packed(places[place])
        parts = []
        end = header_size
        for position, encode_value in variables:
            part = encode_value(values[position])
            parts.append(part)
            end += len(part)
            places.append(end)
        return pack(number, no_nulls, *places) + b"".join(parts)

    return encode


# ---- decoding ------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """How a decoder takes its picks out of rows of one layout.

    `header` unpacks the layout number, the bitmap and only the places that are needed. The variable
    values are appended to what it gives, in order; a slot is an index into that list.
    """

    header: struct.Struct
    conversions: list[tuple[int, Convert]]
    variables: list[tuple[int, int, Callable[[bytes], Any]]]
    """(slot of the start, or -1 for the first variable byte; slot of the end; decode)."""
    slots: dict[int, int]
    """Position in the layout -> slot; the variable ones last, in the order of `variables`."""
    size: int
    """Slots in all."""


def _reading(layout: _Layout, wanted: set[int]) -> _Reading:
    codes = [f"<H{layout.bitmap_size}s"]
    slots: dict[int, int] = {}
    conversions: list[tuple[int, Convert]] = []
    size = 2
    for position, width in layout.fixed.items():
        if position not in wanted:
            codes.append(f"{struct.calcsize('<' + width.code)}x")
            continue
        codes.append(width.code)
        slots[position] = size
        if width.from_packed is not None:
            conversions.append((size, width.from_packed))
        size += 1
    places = list(layout.variable)
    ends: dict[int, int] = {}
    for index, position in enumerate(places):
        if wanted.isdisjoint(places[index : index + 2]):  # nor the start of a wanted one
            codes.append("4x")
            continue
        codes.append("I")
        ends[position] = size
        size += 1
    variables = []
    for index, position in enumerate(places):
        if position in wanted:
            start = ends[places[index - 1]] if index else -1
            variables.append((start, ends[position], layout.variable[position].decode))
            slots[position] = size
            size += 1
    return _Reading(struct.Struct("".join(codes)), conversions, variables, slots, size)


def _decoder(layout: _Layout, picks: Sequence[int | None], constants: Sequence[Any]) -> Decoder:
    """A decoder of `layout`'s rows to `picks`, positions in the layout; None takes the constant."""
    number, first_byte = layout.number, layout.header.size
    no_nulls = bytes(layout.bitmap_size)
    header, conversions, variables, slots, size = _reading(
        layout, {pick for pick in picks if pick is not None}
    )
    unpack = header.unpack_from
    extras = [constant for pick, constant in zip(picks, constants, strict=True) if pick is None]
    extra_slots = iter(range(size, size + len(extras)))
    ordered = _picker([next(extra_slots) if pick is None else slots[pick] for pick in picks])
    variable_positions = [position for position in slots if position in layout.variable]
    fixed_slots = [(position, slot) for position, slot in slots.items() if position in layout.fixed]

    def decode_nulls(data: bytes, values: list[Any]) -> Row:
        nulls = int.from_bytes(values[1], "little")
        for slot, from_packed in conversions:
            values[slot] = from_packed(values[slot])
        for position, (start, end, decode_value) in zip(variable_positions, variables, strict=True):
            if nulls >> position & 1:
                values.append(None)
            else:
                at = values[start] if start >= 0 else first_byte
                values.append(decode_value(data[at : values[end]]))
        values += extras
        for position, slot in fixed_slots:
            if nulls >> position & 1:
                values[slot] = None
        return ordered(values)

    def decode_fixed(data: bytes) -> Row:
        values = unpack(data)
        if values[0] != number:
            raise _unknown_layout(values[0])
        if values[1] != no_nulls:
            return decode_nulls(data, [*values])
        return ordered(values)

    def decode(data: bytes) -> Row:
        values = [*unpack(data)]
        if values[0] != number:
            raise _unknown_layout(values[0])
        if values[1] != no_nulls:
            return decode_nulls(data, values)
        for slot, from_packed in conversions:
            values[slot] = from_packed(values[slot])
        for start, end, decode_value in variables:
            at = values[start] if start >= 0 else first_byte
            values.append(decode_value(data[at : values[end]]))
        values += extras
        return ordered(values)

    return decode if conversions or variables or extras else decode_fixed


# ---- the codec of a table ------------------------------------------------------------------------


class RowCodec:
    """Rows of one table: written in its newest layout, read from any.

    `missing` gives, by column id, the value of a column for rows written before it was added; the
    default is None.
    """

    __slots__ = ("_constants", "_layouts", "decode", "encode")

    encode: Encoder
    """Values of the newest layout, in its order -> bytes."""
    decode: Decoder
    """Bytes of any layout -> the values of the newest layout's columns."""

    def __init__(
        self, layouts: Sequence[Columns], missing: Mapping[int, Any] | None = None
    ) -> None:
        assert 0 < len(layouts) <= LAYOUTS_MAX, "a table has a layout"
        self._layouts = [_layout(number, columns) for number, columns in enumerate(layouts)]
        absent = missing or {}
        self._constants = [absent.get(column_id) for column_id, _ in layouts[-1]]
        self.encode = _encoder(self._layouts[-1])
        self.decode = self.decoder(range(len(layouts[-1])))

    def decoder(self, positions: Sequence[int]) -> Decoder:
        """A decoder to the newest layout's columns at `positions`, in that order; the rest is skipped.

        Raises: StorageError XX001 from the decoder, for bytes that are no row of this table.
        """
        wanted = [self._layouts[-1].columns[position] for position in positions]
        constants = [self._constants[position] for position in positions]

        def compiled(layout: _Layout) -> Decoder:
            position_of = {column: position for position, column in enumerate(layout.columns)}
            return _decoder(layout, [position_of.get(column) for column in wanted], constants)

        newest = self._layouts[-1].number
        decoders = {newest: compiled(self._layouts[-1])}

        def decode_any(data: bytes) -> Row:
            number: int = _LAYOUT.unpack_from(data)[0]
            decoder = decoders.get(number)
            if decoder is None:
                if number > newest:
                    raise _unknown_layout(number)
                decoder = decoders[number] = compiled(self._layouts[number])
            return decoder(data)

        decode_row = decode_any if newest else decoders[newest]

        def decode(data: bytes) -> Row:
            try:
                return decode_row(data)
            except (struct.error, ValueError, ArithmeticError) as error:
                raise StorageError(f"row cannot be read: {error}", "XX001") from error

        return decode


def _unknown_layout(number: int) -> StorageError:
    return StorageError(f"row has layout {number}, which the table does not have", "XX001")
