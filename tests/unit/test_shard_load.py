"""How much is asked of a shard elsewhere, and of which keys."""

from __future__ import annotations

from shardforge.ids import ShardId, Timestamp, TxnId
from shardforge.shard.command import Commit
from shardforge.shard.remote.load import SAMPLE, SAMPLE_MIN, Load

SHARD = ShardId(7)


def test_a_rate_comes_near_what_is_asked_and_goes_back_to_nothing() -> None:
    load = Load(SHARD)
    load.look(100.0)
    for second in range(1, 11):
        for number in range(500):
            load.asked(b"h%d" % number)
        load.look(100.0 + second)
    assert 495 < load.rate <= 500
    for second in range(11, 31):
        assert load.look(100.0 + second) == []
    assert load.rate < 1


def test_every_key_that_is_written_counts() -> None:
    load = Load(SHARD)
    load.look(0.0)
    writes = tuple((b"h%d" % number, b"x") for number in range(SAMPLE_MIN))
    load.ordered(Commit(TxnId(1), Timestamp(5), 1, writes))
    assert load.look(2.0) == sorted(key for key, _ in writes)
    assert load.rate == SAMPLE_MIN / 2 / 2, "half of the newest"


def test_the_sample_is_of_all_that_is_asked() -> None:
    load = Load(SHARD)
    for number in range(20_000):
        load.asked(b"h%05d" % number)
    sample = load.look(1.0)
    assert len(sample) == SAMPLE
    below = sum(key < b"h10000" for key in sample)
    assert SAMPLE * 0.35 < below < SAMPLE * 0.65
    assert load.look(2.0) == [], "each look begins anew"


def test_few_keys_say_nothing() -> None:
    load = Load(SHARD)
    for number in range(SAMPLE_MIN - 1):
        load.asked(b"h%d" % number)
    assert load.look(1.0) == []
