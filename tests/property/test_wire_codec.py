"""The wire's parsers against arbitrary bytes: a message, or NetworkError; never another exception, never bytes lost."""

from __future__ import annotations

import struct
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from shardforge.errors import DatabaseError, NetworkError
from shardforge.server.pgwire import backend, frontend

READERS = (
    frontend.read_startup, frontend.read_query, frontend.read_parse, frontend.read_bind, frontend.read_target,
    frontend.read_execute, frontend.read_sasl_initial, frontend.read_copy_fail,
)  # fmt: skip


@given(body=st.binary(max_size=80), reader=st.sampled_from(READERS))
def test_any_body_is_read_or_refused(body: bytes, reader: object) -> None:
    with suppress(NetworkError):
        reader(body)  # type: ignore[operator]


@given(
    messages=st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=40)), max_size=8),
    piece=st.integers(1, 9),
)
def test_messages_survive_any_cutting(messages: list[tuple[int, bytes]], piece: int) -> None:
    stream = b"".join(struct.pack("!BI", kind, len(body) + 4) + body for kind, body in messages)
    reader = frontend.MessageReader()
    reader.starting = False
    found = []
    for start in range(0, len(stream), piece):
        found += [tuple(message) for message in reader.feed(stream[start : start + piece])]
    assert found == messages
    assert reader.pending_bytes == 0


@given(data=st.binary(max_size=60), starting=st.booleans())
def test_a_reader_never_holds_more_than_it_was_given(data: bytes, starting: bool) -> None:
    reader = frontend.MessageReader()
    reader.starting = starting
    try:
        found = reader.feed(data)
    except NetworkError:
        return
    consumed = sum(len(message.body) + (4 if starting else 5) for message in found)
    assert consumed + reader.pending_bytes == len(data)
    assert len(found) <= 1 or not starting


@given(
    portal=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    values=st.lists(st.none() | st.binary(max_size=9), max_size=5),
    formats=st.lists(st.integers(0, 1), max_size=3),
)
def test_bind_round_trip(portal: str, values: list[bytes | None], formats: list[int]) -> None:
    body = portal.encode() + b"\0stmt\0" + struct.pack(f"!h{len(formats)}h", len(formats), *formats)
    body += struct.pack("!h", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    body += struct.pack("!hh", 1, 1)
    assert frontend.read_bind(body) == frontend.Bind(portal, "stmt", tuple(formats), values, (1,))


@given(
    rows=st.lists(
        st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9)), max_size=4
    )
)
def test_data_rows_have_the_length_that_they_say(
    rows: list[tuple[bytes | None, bytes | None]],
) -> None:
    stream = b"".join(backend.data_rows(rows, [bytes, bytes]))
    for row in rows:
        kind, size, count = struct.unpack_from("!cIh", stream)
        assert (kind, count) == (b"D", 2)
        body, stream = stream[7 : size + 1], stream[size + 1 :]
        for value in row:
            (length,) = struct.unpack_from("!i", body)
            body = body[4:]
            if value is None:
                assert length == -1
            else:
                assert body[:length] == value
                body = body[length:]
        assert body == b""
    assert stream == b""


def test_error_fields_never_break_the_message() -> None:
    error = DatabaseError("a\0b", "42601", detail="d", position=7, constraint="c")
    message = backend.error_response(error)
    assert message.count(b"\0\0") >= 1
    assert b"Mab\0" in message
    assert b"P7\0" in message
