"""When the serving node begins a merge: neighbours that are small together for so long, and are left alone."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from dataclasses import replace
from typing import Any, cast

from shardforge.config import Config
from shardforge.ids import NodeId, ShardId
from shardforge.node.cutting import Cutting
from shardforge.node.merging import Merging
from shardforge.node.overview import ShardSight
from shardforge.ports import Blocking, Clock
from shardforge.raft.messages import ConfState
from shardforge.shard.descriptor import ShardDescriptor, Span
from shardforge.shard.host import Host
from shardforge.txn.store import Store

MIB = 1 << 20
BOUNDS = (b"", b"h\x00\x10", b"h\x00\x20", b"h\x00\x30", b"s")


class Done:
    """A task that has ended."""

    def done(self) -> bool:
        return True


class FakeStore:
    """Notes which left ones are asked for."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.sticky: set[ShardId] = set()

    def carry_out(self, work: Coroutine[Any, Any, None]) -> Done:
        assert work.cr_frame is not None
        self.begun.append(work.cr_frame.f_locals["left"])
        work.close()
        return Done()


def _sight(number: int, mib: int, epoch: int = 1) -> ShardSight:
    span = Span(BOUNDS[number - 1], BOUNDS[number])
    descriptor = ShardDescriptor(ShardId(number), span, epoch)
    members = ConfState(voters=(1, 2, 3))
    return ShardSight(descriptor, members, NodeId(1), 1, 9, 9, {}, False, mib * MIB, None)


class Watch:
    """One tenure's watch, over shards of so many MiB."""

    def __init__(self, after: int = 60, least: int = 1) -> None:
        config = Config().sharding
        self.store = FakeStore()
        self.merging = Merging(
            cast("Host", None), cast("Store", self.store), cast("Clock", None), cast("Blocking", None),
            cast("Cutting", None), replace(config, merge_after_sec=after, initial_shard_count=least),
            lambda _: None, lambda _: None,
        )  # fmt: skip

    def look(
        self, now: float, *mib: int, epochs: tuple[int, ...] = (1, 1, 1, 1), busy: Collection[ShardId] = (),
    ) -> list[int]:  # fmt: skip
        self.store.begun.clear()
        sights = [
            _sight(number, size, epochs[number - 1]) for number, size in enumerate(mib, start=1)
        ]
        self.merging.look(sights, busy, now)
        return list(self.store.begun)


def test_neighbours_are_merged_once_they_were_small_for_long_enough() -> None:
    watch = Watch()
    assert watch.look(0, 1, 1) == []
    assert watch.look(59, 1, 1) == []
    assert watch.look(60, 1, 1) == [1]
    assert watch.look(61, 1, 1) == [], "it did not come to that: they rest as long again"
    assert watch.look(121, 1, 1) == [1]


def test_what_grows_splits_or_moves_in_between_begins_again() -> None:
    watch = Watch()
    watch.look(0, 1, 1)
    assert watch.look(30, 1, 200) == []
    assert watch.look(60, 1, 1) == []
    assert watch.look(119, 1, 1, epochs=(2, 1)) == []
    assert watch.look(121, 1, 1, epochs=(2, 1)) == []
    assert watch.look(150, 1, 1, epochs=(2, 1), busy={ShardId(2)}) == []
    assert watch.look(190, 1, 1, epochs=(2, 1)) == []
    assert watch.look(250, 1, 1, epochs=(2, 1)) == [1]


def test_one_at_a_time_and_never_below_what_was_made_first() -> None:
    watch = Watch(least=2)
    watch.look(0, 1, 1, 1, 1)
    assert watch.look(60, 1, 1, 1, 1) == [1]
    assert watch.look(61, 1, 1, 1, 1) == [3]
    few = Watch(least=4)
    few.look(0, 1, 1, 1, 1)
    assert few.look(100, 1, 1, 1, 1) == []


def test_what_was_split_by_hand_is_not_merged_by_itself() -> None:
    watch = Watch()
    watch.store.sticky = {ShardId(2)}
    watch.look(0, 1, 1)
    assert watch.look(1000, 1, 1) == []
    watch.store.sticky.clear()
    watch.look(1001, 1, 1)
    assert watch.look(1061, 1, 1) == [1]


def test_what_is_much_to_copy_stays_and_0_means_never() -> None:
    watch = Watch()
    watch.look(0, 1, 9)
    assert watch.look(100, 1, 9) == []
    watch.look(100, 9, 1)
    assert watch.look(200, 9, 1) == [1]
    never = Watch(after=0)
    never.look(0, 1, 1)
    assert never.look(1000, 1, 1) == []
