"""States that are kept for others to pull: how long, and for whom."""

from __future__ import annotations

import asyncio

import pytest

from shardforge.errors import StorageError
from shardforge.ids import NodeId
from shardforge.shard.snapshot import IDLE_SECONDS, PULLED_SECONDS, Pins, unpack_piece
from shardforge.storage.memory import MemoryEngine
from tests.inline import Inline


def pins_over_one_pair() -> tuple[Pins, MemoryEngine]:
    engine = MemoryEngine()
    engine.write([(b"k", b"v")])
    return Pins(Inline()), engine


def test_what_is_pulled_to_its_end_is_kept_a_little_longer() -> None:
    async def test() -> None:
        pins, engine = pins_over_one_pair()
        one, two = pins.pin(engine, 0.0), pins.pin(engine, 0.0)
        piece, last = await pins.piece(one, b"", NodeId(2), 1.0)
        assert last
        assert unpack_piece(piece) == ([(b"k", b"v")], True)
        assert pins.pullers() == {2}
        assert not pins.expire(1.0 + PULLED_SECONDS)
        assert pins.expire(1.1 + PULLED_SECONDS), "its answer may be lost"
        assert pins.pullers() == set()
        with pytest.raises(StorageError):
            await pins.piece(one, b"", NodeId(2), 4.0)
        assert not pins.expire(IDLE_SECONDS), "nobody has begun to pull the other one"
        assert pins.expire(IDLE_SECONDS + 0.1)
        with pytest.raises(StorageError):
            await pins.piece(two, b"", NodeId(3), 20.0)

    asyncio.run(test())


def test_who_pulls_another_state_is_left_alone() -> None:
    async def test() -> None:
        pins, engine = pins_over_one_pair()
        pins.pin(engine, 0.0)
        newer = pins.pin(engine, 9.0)
        await pins.piece(newer, b"", NodeId(3), 10.0)
        assert pins.expire(IDLE_SECONDS + 0.5), "the first one"
        assert pins.pullers() == {3}

    asyncio.run(test())
