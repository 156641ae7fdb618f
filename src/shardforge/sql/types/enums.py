"""Enum types. A value is its label's place in the type's order: a float that is never another label's, nor changed.

So values compare, sort, hash and are stored as numbers, and only text and the binary form, which is the label's text,
ask the catalog of a session (`TypeSettings`) each time. Stored text is read and written without a catalog: there a
value is its number, whatever the label is called by then. Source: PostgreSQL 15, src/backend/utils/adt/enum.c.
"""

from __future__ import annotations

from typing import Any

from shardforge.sql.types.base import Codec, Input, Output, Receive, Send, TypeSettings
from shardforge.sql.types.strings import receive_text


def enum_codec(oid: int) -> Codec:
    """How values of one enum type are handled."""

    def reader(settings: TypeSettings) -> Input:
        session: Any = settings
        if getattr(session, "catalog", None) is None:
            return float
        return lambda text: session.catalog.enum_in(oid, text)

    def writer(settings: TypeSettings) -> Output:
        session: Any = settings
        if getattr(session, "catalog", None) is None:
            return repr
        return lambda value: session.catalog.enum_out(oid, value)

    def receiver(settings: TypeSettings) -> Receive:
        read = reader(settings)
        return lambda data: read(receive_text(data))

    def sender(settings: TypeSettings) -> Send:
        write = writer(settings)
        return lambda value: write(value).encode()

    return Codec(oid, reader, writer, receiver, sender)
