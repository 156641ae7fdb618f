"""Hostile clients: whatever they send, the server lives, the others are served, and nothing stays behind."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

STARTUP = b"user\0shardforge\0database\0shardforge\0\0"
KINDS = b"QPBDECSHXFdcfpzA\x00\xff"


def packet(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("!BI", kind, len(body) + 4 if length is None else length) + body


messages = st.builds(
    packet,
    st.sampled_from(KINDS),
    st.binary(max_size=60)
    | st.sampled_from(
        [b"SELECT 1\0", b"\0SELECT $1\0\0\0", b"\0\0\0\0\0\0\0\0", b"S\0", b"P\0", b"\0\0\0\0\0"]
    ),
    st.none() | st.integers(0, 2**32 - 1),
)


def exchange(server: ServerProcess, data: bytes) -> bytes:
    """Send, stop sending, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while piece := client.recv(65536):
                received += piece
        except ConnectionResetError:
            return received
        return received


def alive(server: ServerProcess) -> None:
    with server.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=200))
def test_any_first_bytes(server: ServerProcess, data: bytes) -> None:
    exchange(server, data)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stream=st.lists(messages, max_size=8))
def test_any_messages_after_login(server: ServerProcess, stream: list[bytes]) -> None:
    startup = struct.pack("!II", len(STARTUP) + 8, 196608) + STARTUP
    answer = exchange(server, startup + b"".join(stream))
    assert answer.startswith(b"R")


def test_the_others_are_served_and_nothing_stays(server: ServerProcess) -> None:
    startup = struct.pack("!II", len(STARTUP) + 8, 196608) + STARTUP
    half_open = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for number, client in enumerate(half_open):
        client.sendall((startup + packet(ord("P"), b"", 1 << 29))[: 4 + number * 3])
    alive(server)
    for client in half_open:
        client.close()
    with server.connect() as connection:
        sessions = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state IS NOT NULL"
        ).fetchone()
        assert sessions is not None
        assert int(str(sessions[0])) <= 25


def test_a_flood_of_statements_without_reading_is_held_back(server: ServerProcess) -> None:
    startup = struct.pack("!II", len(STARTUP) + 8, 196608) + STARTUP
    query = packet(ord("Q"), b"SELECT repeat('x', 100000) FROM generate_series(1, 100)\0")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(startup)
        client.settimeout(0.5)
        try:
            for _ in range(2000):
                client.sendall(query * 20)
        except TimeoutError:
            pass  # the server stopped reading: what it must do
        alive(server)
