"""The watch over the sizes of shards looks at the map as it is, not as it was before the last split."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from shardforge.ids import ShardId
from shardforge.node.splitting import Splitting


class EnoughError(Exception):
    """The watch has nothing more to do."""


class Clock:
    """Time that passes by sleeping, a few times."""

    def __init__(self, sleeps: int) -> None:
        self._now = 0.0
        self._left = sleeps

    def monotonic_ns(self) -> int:
        return int(self._now * 1e9)

    async def sleep(self, seconds: float) -> None:
        self._left -= 1
        if not self._left:
            raise EnoughError
        self._now += seconds


class Replica:
    """As large as it is said, until it is closed."""

    def __init__(self, shard: int, size: int) -> None:
        self.id = ShardId(shard)
        self.closed = False
        self._size = size

    @property
    def size_bytes(self) -> int:
        assert not self.closed, "its engine is closed"
        return self._size


def test_a_replica_that_was_given_away_during_a_split_is_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, given, kept = Replica(1, 9), Replica(2, 3), Replica(3, 9)
    store: Any = SimpleNamespace(
        participants=[
            SimpleNamespace(replica=one, remote=None, streams=()) for one in (first, given, kept)
        ]
    )
    host: Any = SimpleNamespace(find=lambda _shard: None)
    clock: Any = Clock(sleeps=3)
    watch = Splitting(host, store, clock, SimpleNamespace(), 5, 0, print, print)  # type: ignore[arg-type]
    split: list[ShardId] = []

    async def relieve(participant: Any) -> None:
        split.append(participant.replica.id)
        given.closed = True
        store.participants[1] = SimpleNamespace(replica=Replica(2, 0), remote=None, streams=())

    monkeypatch.setattr(watch, "_relieve", relieve)
    with pytest.raises(EnoughError):
        asyncio.run(watch.run())
    assert split == [1, 3], "each once: they rest afterwards"
