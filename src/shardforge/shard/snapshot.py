"""A replica's state on its way to another node: pulled in checksummed pieces, resumed after a break, installed whole.

    leader                                   follower
    pin the engine's state   -- SNAPSHOT -->  stage an empty engine
    read a piece             <-- pull(after) --
                             -- piece ------>  check, write; again until the last one
                                              hand the message to the core, which installs the staged engine

A piece holds pairs of the engine in key order, so both engines send alike; a pull without an answer is repeated from
the last key. The follower sets the pace: one piece is under way at a time. What nobody pulls is let go, and who was to
have it is asked where it stands: its announcement, or its answer, may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import google_crc32c
import msgspec

from shardforge.errors import NetworkError, StorageError
from shardforge.ids import NodeId, ShardId
from shardforge.ports import Blocking
from shardforge.storage.engine import Engine, Pair, Snapshot

METHOD = "snapshot"
"""The call by which pieces are pulled."""
PIECE_BYTES = 1 << 20
IDLE_SECONDS = 10.0
"""How long a pinned state that nobody pulls is kept."""
PULLED_SECONDS = 2.0
"""The same for one that was pulled to its end: its receiver is about to say that it has it."""

_START, _END = b"\x00", b"\xff"


class Pull(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the piece after a key."""

    shard: ShardId
    pin: int
    after: bytes


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """`body` is the encoded pairs; `last`: nothing follows."""

    body: bytes
    crc: int
    last: bool


_encoder = msgspec.msgpack.Encoder()
_pull_decoder = msgspec.msgpack.Decoder(Pull)
_piece_decoder = msgspec.msgpack.Decoder(Piece)
_pairs_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]])


def encode_pull(pull: Pull) -> bytes:
    """A pull as a call's body."""
    return _encoder.encode(pull)


def decode_pull(body: bytes) -> Pull:
    """A call's body as a pull. Raises NetworkError 08P01."""
    try:
        return _pull_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise NetworkError(f"a request for a snapshot cannot be read: {error}") from error


def pack_piece(pairs: Sequence[Pair], *, last: bool) -> bytes:
    """Pairs as a call's answer."""
    body = _encoder.encode(pairs)
    return _encoder.encode(Piece(body, google_crc32c.value(body), last))


def unpack_piece(answer: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The pairs of an answer, and whether they are the last. Raises StorageError XX001 when they were damaged."""
    try:
        piece = _piece_decoder.decode(answer)
        if google_crc32c.value(piece.body) != piece.crc:
            raise StorageError("a piece of a snapshot arrived damaged: wrong checksum", "XX001")
        return _pairs_decoder.decode(piece.body), piece.last
    except msgspec.MsgspecError as error:
        raise StorageError(f"a piece of a snapshot arrived damaged: {error}", "XX001") from error


class _Pinned:
    __slots__ = ("busy", "node", "pulled", "state", "used_at")

    def __init__(self, state: Snapshot, now: float) -> None:
        self.state = state
        self.busy = False
        self.node: NodeId | None = None
        """Who pulls it; None before the first piece."""
        self.pulled = False
        self.used_at = now

    def forgotten(self, now: float) -> bool:
        """Whether it is not pulled any more."""
        limit = PULLED_SECONDS if self.pulled else IDLE_SECONDS
        return not self.busy and now - self.used_at > limit


class Pins:
    """The states of one replica that others are pulling."""

    def __init__(self, blocking: Blocking, piece_bytes: int = PIECE_BYTES) -> None:
        self._blocking = blocking
        self._piece_bytes = piece_bytes
        self._pinned: dict[int, _Pinned] = {}
        self._numbers = count(1)

    def pin(self, engine: Engine, now: float) -> int:
        """Keep the engine's present state; its number."""
        number = next(self._numbers)
        self._pinned[number] = _Pinned(engine.snapshot(), now)
        return number

    async def piece(
        self, number: int, after: bytes, node: NodeId, now: float
    ) -> tuple[bytes, bool]:
        """The next piece of a pinned state for a node, and whether it is the last.

        Raises: StorageError 55000: not kept any more, 55006: in use.
        """
        pinned = self._pinned.get(number)
        if pinned is None:
            raise StorageError("the snapshot is not kept any more", "55000")
        if pinned.busy:
            raise StorageError("a piece of the snapshot is being read", "55006")
        pinned.node = node
        pinned.used_at = now
        pinned.busy = True
        try:
            piece, pinned.pulled = await self._blocking.run(
                lambda: _read_piece(pinned.state, after, self._piece_bytes)
            )
        finally:
            pinned.busy = False
        return piece, pinned.pulled

    def pullers(self) -> set[NodeId]:
        """Who pulls what is kept now."""
        return {pinned.node for pinned in self._pinned.values() if pinned.node is not None}

    def expire(self, now: float) -> bool:
        """Let go what nobody pulled for a while; whether there was any."""
        old = [number for number, pinned in self._pinned.items() if pinned.forgotten(now)]
        for number in old:
            self._pinned.pop(number).state.close()
        return bool(old)

    def close(self) -> None:
        """Let everything go."""
        for pinned in self._pinned.values():
            pinned.state.close()
        self._pinned.clear()


def _read_piece(state: Snapshot, after: bytes, piece_bytes: int) -> tuple[bytes, bool]:
    pairs: list[Pair] = []
    size = 0
    for pair in state.scan(after + b"\x00" if after else _START, _END):
        pairs.append(pair)
        size += len(pair[0]) + len(pair[1])
        if size >= piece_bytes:
            return pack_piece(pairs, last=False), False
    return pack_piece(pairs, last=True), True
