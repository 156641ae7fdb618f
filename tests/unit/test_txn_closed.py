"""Which timestamps are closed, and how old what they show is."""

from __future__ import annotations

from dataclasses import dataclass, field

from shardforge.ids import ShardId, Timestamp, TxnId
from shardforge.shard.pending import Mark, Pending
from shardforge.txn.closed import Closed, ClosedTimestamps, closed_now

SHARD = ShardId(1)


@dataclass
class Led:
    """As much of a participant as closing looks at: it is its own replica."""

    id: ShardId = SHARD
    index: int = 7
    term: int = 3
    pending: Pending = field(default_factory=Pending)

    @property
    def replica(self):
        return self


def test_everything_given_is_closed_when_nothing_is_under_way():
    assert closed_now(Timestamp(50), [Led()]) == Closed(Timestamp(50), {SHARD: 7}, Timestamp(50))


def test_a_commit_under_way_is_not_closed():
    led = Led()
    for number, timestamp in ((1, 40), (2, 45), (3, 0)):
        mark = Mark(TxnId(number), Timestamp(1), [b"%d" % number])
        mark.timestamp = Timestamp(timestamp)
        assert led.pending.add(mark)
    assert closed_now(Timestamp(50), [Led(ShardId(2)), led]).timestamp == 39


def test_an_orphan_without_a_timestamp_may_have_been_committed_long_ago():
    led = Led()
    mark = Mark(TxnId(1), Timestamp(30), [b"1"])
    assert led.pending.add(mark)
    assert closed_now(Timestamp(50), [led]).timestamp == 50  # its own coordinator draws one above
    mark.orphan = True
    assert closed_now(Timestamp(50), [led]).timestamp == 30


def test_a_leader_that_was_deposed_closes_nothing():
    closed = closed_now(Timestamp(50), [Led(), Led(ShardId(2), term=0)])
    assert closed.timestamp == 0
    node = ClosedTimestamps()
    node.offer(closed, 1)
    assert node.usable({}) == 0


def test_a_timestamp_is_used_once_its_entries_are_applied():
    node = ClosedTimestamps()
    node.offer(Closed(Timestamp(10), {SHARD: 5}, Timestamp(10)), 100)
    node.offer(Closed(Timestamp(20), {SHARD: 8}, Timestamp(20)), 200)
    assert node.usable({SHARD: 4}) == 0
    assert (node.usable({SHARD: 7}), node.closed_us) == (10, 100)
    assert (node.usable({SHARD: 8}), node.closed_us) == (20, 200)


def test_a_commit_that_does_not_end_makes_what_is_closed_older():
    node = ClosedTimestamps()
    for last, heard_us in ((10, 100), (20, 200), (30, 300)):
        node.offer(Closed(Timestamp(min(last, 12)), {SHARD: 5}, Timestamp(last)), heard_us)
    assert (node.usable({SHARD: 5}), node.closed_us) == (12, 100)
    node.offer(Closed(Timestamp(25), {SHARD: 5}, Timestamp(40)), 400)
    assert (node.usable({SHARD: 5}), node.closed_us) == (25, 200)
    node.offer(Closed(Timestamp(40), {SHARD: 5}, Timestamp(40)), 500)
    assert (node.usable({SHARD: 5}), node.closed_us) == (40, 500)
