"""The bytes between nodes: what is written is read, however it is cut, and nothing else is accepted."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardforge.errors import (
    ConsensusError,
    DatabaseError,
    NetworkError,
    QueryError,
    StorageError,
    TransactionError,
)
from shardforge.server.peer import codec

KINDS = st.sampled_from([codec.FRAME, codec.CALL, codec.ANSWER, codec.ERROR, codec.HELLO])
FRAMES = st.lists(st.tuples(KINDS, st.binary(max_size=300)), max_size=6)
TEXT = st.text(max_size=40)


@given(FRAMES, st.lists(st.integers(0, 2000), max_size=8))
def test_frames_survive_any_cut(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(codec.frame(kind, payload) for kind, payload in frames)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = codec.FrameReader()
    read = [frame for a, b in itertools.pairwise(edges) for frame in reader.feed(stream[a:b])]
    assert read == frames


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_damaged_frame_is_refused(payload: bytes, data: st.DataObject) -> None:
    whole = bytearray(codec.frame(codec.FRAME, payload))
    at = data.draw(st.integers(4, len(whole) - 1), "byte")  # a wrong length would make it wait
    whole[at] ^= 1 << data.draw(st.integers(0, 7), "bit")
    with pytest.raises(NetworkError) as caught:
        codec.FrameReader().feed(bytes(whole))
    assert caught.value.sqlstate == "08P01"


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_random_bytes_are_refused_or_wait_for_more(chunks: list[bytes]) -> None:
    reader = codec.FrameReader()
    with contextlib.suppress(NetworkError):
        for chunk in chunks:
            assert reader.feed(chunk) == []


@given(st.binary(max_size=200))
def test_hostile_payloads_are_refused(payload: bytes) -> None:
    for read in (codec.read_hello, codec.read_call, codec.read_answer, codec.decode_error):
        with contextlib.suppress(NetworkError):
            read(payload)


def test_a_frame_longer_than_allowed_is_refused_by_its_header() -> None:
    reader = codec.FrameReader(payload_bytes_max=10)
    with pytest.raises(NetworkError, match="11 bytes"):
        reader.feed(codec.frame(codec.FRAME, bytes(11))[: codec.HEADER_BYTES])


@given(st.text(max_size=40), st.integers(0, 65535), st.none() | st.binary(max_size=50))
def test_hello_round_trip(cluster: str, node: int, splice: bytes | None) -> None:
    hello = codec.Hello(cluster, node, splice=splice)
    [frame] = codec.FrameReader().feed(codec.hello_frame(hello))
    assert codec.read_hello(frame.payload) == hello


@given(st.integers(0, 2**64 - 1), st.text("abc.é", max_size=40), st.binary(max_size=99))
def test_call_round_trip(call_id: int, method: str, body: bytes) -> None:
    assert codec.read_call(codec.call_payload(call_id, method, body)) == (call_id, method, body)
    assert codec.read_answer(codec.answer_payload(call_id, body)) == (call_id, body)


@given(
    st.sampled_from([ConsensusError, DatabaseError, NetworkError, QueryError, StorageError, TransactionError]),
    TEXT, TEXT, TEXT,
)  # fmt: skip
def test_error_round_trip(
    family: type[DatabaseError], message: str, detail: str, hint: str
) -> None:
    error = codec.decode_error(
        codec.encode_error(family(message, "22012", detail=detail, hint=hint))
    )
    assert type(error) is family
    fields = (error.message, error.sqlstate, error.detail, error.hint)
    assert fields == (message, "22012", detail, hint)


def test_an_error_with_a_lone_surrogate_is_sent() -> None:
    assert codec.decode_error(codec.encode_error(QueryError("a\ud800b"))).message == "a?b"


@pytest.mark.parametrize(
    ("lowest", "highest", "agree"),
    [(1, 1, True), (0, 1, True), (1, 9, True), (2, 3, False), (0, 0, False)],
)
def test_versions(lowest: int, highest: int, agree: bool) -> None:
    mine, theirs = codec.Hello("c", 1, 1, 1), codec.Hello("c", 2, lowest, highest)
    if agree:
        codec.check_versions(mine, theirs)
    else:
        with pytest.raises(NetworkError, match=f"node 2 speaks versions {lowest} to {highest}"):
            codec.check_versions(mine, theirs)
