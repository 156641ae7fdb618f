"""The interval type as the registry sees it. Text lives in interval_text.

Order and equality are by total length, months of 30 days: '1 mon' = '30 days'. Only the `postgres` output
style is written. Source: PostgreSQL 15, section 8.5.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from shardforge.errors import unsupported
from shardforge.sql.types import oids
from shardforge.sql.types.base import Codec, Coercion, TypeSettings, plain, unpacker
from shardforge.sql.types.interval_text import (
    apply_interval_typmod,
    format_interval,
    interval_total,
    interval_typmod_in,
    interval_typmod_out,
    parse_interval,
)
from shardforge.sql.types.values import Interval

_BINARY = struct.Struct(">qii")
_unpack = unpacker(">qii")


def _output(settings: TypeSettings) -> Callable[[Interval], str]:
    if settings.intervalstyle.lower() != "postgres":
        raise unsupported(f'IntervalStyle "{settings.intervalstyle}"')
    return format_interval


def receive_interval(data: bytes) -> Interval:
    """Binary interval."""
    micros, days, months = _unpack(data)
    return Interval(months, days, micros)


def send_interval(value: Interval) -> bytes:
    """Binary interval."""
    return _BINARY.pack(value.micros, value.days, value.months)


def _coercion(typmod: int, _explicit: bool) -> Coercion:
    return lambda value: apply_interval_typmod(typmod, value)


CODECS: tuple[Codec, ...] = (
    Codec(
        oids.INTERVAL,
        input=plain(parse_interval),
        output=_output,
        receive=plain(receive_interval),
        send=plain(send_interval),
        sort_key=interval_total,
        coercion=_coercion,
        typmod_in=interval_typmod_in,
        typmod_out=interval_typmod_out,
    ),
)
