"""The date/time family: date, time, timetz, timestamp and timestamptz as the registry sees them.

Text and binary forms live in datetime_text; here are only the codecs and their precision modifiers.
Source: PostgreSQL 15, section 8.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.types import datetime_text as text
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Coercion, plain

_MAX_PRECISION = 6


def _typmod_in(name: str, suffix: str) -> Callable[[list[int]], int]:
    def read(numbers: list[int]) -> int:
        if len(numbers) != 1:
            raise QueryError("invalid type modifier", "22023")
        if numbers[0] < 0:
            raise QueryError(
                f"{name}({numbers[0]}){suffix} precision must not be negative", "22023"
            )
        return min(numbers[0], _MAX_PRECISION)

    return read


def _coercion(typmod: int, _explicit: bool) -> Coercion:
    return lambda value: text.apply_precision(typmod, value)


def _timetz_coercion(typmod: int, _explicit: bool) -> Coercion:
    return lambda value: text.apply_timetz_precision(typmod, value)


def _codec(
    oid: int,
    words: tuple[str, str],
    *,
    input: Any,
    output: Any,
    receive: Any,
    send: Any,
    coercion: Callable[[int, bool], Coercion] = _coercion,
    sort_key: Callable[[Any], Any] | None = None,
) -> Codec:
    base, zone = words
    return Codec(
        oid,
        input=input,
        output=output,
        receive=plain(receive),
        send=plain(send),
        sort_key=sort_key,
        coercion=coercion,
        typmod_in=_typmod_in(base.upper(), zone),
        display=lambda typmod: f"{base}({typmod}) {zone}",
    )


_WITHOUT = "without time zone"
_WITH = "with time zone"

CODECS: tuple[Codec, ...] = (
    Codec(
        oids.DATE,
        input=text.date_input,
        output=text.date_output,
        receive=plain(text.receive_date),
        send=plain(text.send_date),
    ),
    _codec(
        oids.TIME,
        ("time", _WITHOUT),
        input=text.time_input,
        output=plain(text.format_time),
        receive=text.receive_time,
        send=text.send_time,
    ),
    _codec(
        oids.TIMETZ,
        ("time", _WITH),
        input=text.timetz_input,
        output=plain(text.format_timetz),
        receive=text.receive_timetz,
        send=text.send_timetz,
        coercion=_timetz_coercion,
        sort_key=text.timetz_sort_key,
    ),
    _codec(
        oids.TIMESTAMP,
        ("timestamp", _WITHOUT),
        input=text.timestamp_input,
        output=text.timestamp_output,
        receive=text.receive_timestamp,
        send=text.send_timestamp,
    ),
    _codec(
        oids.TIMESTAMPTZ,
        ("timestamp", _WITH),
        input=text.timestamptz_input,
        output=text.timestamptz_output,
        receive=text.receive_timestamp,
        send=text.send_timestamp,
    ),
)
