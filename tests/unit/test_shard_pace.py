"""What is copied to a node comes at the rate that it is to come at, however many copies there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from shardforge.ids import NodeId, ShardId
from shardforge.shard.counters import SnapshotCounters
from shardforge.shard.fetch import Fetch
from shardforge.shard.pace import Pace
from shardforge.shard.snapshot import decode_pull, pack_piece
from shardforge.storage.memory import MemoryEngine

T = TypeVar("T")
PIECES = 20


def test_a_piece_is_paid_for_before_the_next_one() -> None:
    pace = Pace(100.0)
    assert pace.wait(10.0) == 0.0
    pace.took(50, 10.0)
    assert pace.wait(10.1) == pytest.approx(0.4)
    pace.took(100, 10.5)
    assert pace.wait(10.5) == pytest.approx(1.0)


def test_what_is_not_used_is_not_saved_up() -> None:
    pace = Pace(100.0)
    pace.took(100, 0.0)
    pace.took(100, 50.0)
    assert pace.wait(50.0) == pytest.approx(1.0)


class Still:
    """Time passes by sleeping only; and the calls of another node's snapshot, and blocking work, take none."""

    now = 0.0
    sent = 0

    def monotonic_ns(self) -> int:
        return round(self.now * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        number = int(decode_pull(body).after or b"0") + 1
        answer = pack_piece([(b"%d" % number, bytes(1000))], last=number == PIECES)
        self.sent += len(answer)
        return answer

    async def run(self, work: Callable[[], T]) -> T:
        return work()


def test_copies_of_several_shards_share_the_rate() -> None:
    async def test() -> None:
        still: Any = Still()
        fetch = Fetch(still, still, still, SnapshotCounters(), Pace(10_000.0))
        pulls = (fetch.pull(NodeId(2), ShardId(n), 1, MemoryEngine()) for n in (1, 2, 3))
        await asyncio.gather(*pulls)
        paid_for = still.sent * (PIECES - 1) / PIECES  # nothing comes after the last ones
        assert still.now >= 0.99 * paid_for / 10_000.0

    asyncio.run(test())
