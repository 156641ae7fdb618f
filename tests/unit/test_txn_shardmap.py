"""The rows of the shard map, and which shards they make known."""

from __future__ import annotations

import msgspec

from shardforge.ids import ShardId
from shardforge.shard.descriptor import ShardDescriptor, Span, tiles
from shardforge.storage import mvcc
from shardforge.storage.memory import MemoryEngine
from shardforge.txn.shardmap import (
    ShardRow,
    descriptor_of,
    encode_row,
    existing,
    kept_sticky,
    load_rows,
    row_of,
    shard_key,
)

META = ShardDescriptor(ShardId(0), Span(b"s", b"t"))
WHOLE = ShardDescriptor(ShardId(1), Span(b"", b"s"))
LOW = ShardDescriptor(ShardId(1), Span(b"", b"m"), 2)
CHILD = ShardRow(ShardId(2), Span(b"m", b"s"), 2, parent=ShardId(1))
ROWS = {row.id: row for row in (row_of(META), row_of(WHOLE), CHILD)}


def test_rows_are_read_back() -> None:
    engine = MemoryEngine()
    engine.write([mvcc.put_version(shard_key(row.id), 5, encode_row(row)) for row in ROWS.values()])
    assert load_rows(engine) == ROWS


def test_a_row_of_a_version_that_knew_no_sticky_shards_is_read() -> None:
    engine = MemoryEngine()
    old = msgspec.msgpack.encode([2, [b"m", b"s"], 2, 1, -1, False])
    engine.write([mvcc.put_version(shard_key(CHILD.id), 5, old)])
    assert load_rows(engine) == {CHILD.id: CHILD}


def test_a_sticky_row_stays_so_whatever_is_written_of_the_shard() -> None:
    sticky = msgspec.structs.replace(CHILD, sticky=True)
    settled = row_of(descriptor_of(CHILD))
    assert kept_sticky(settled, sticky) == msgspec.structs.replace(settled, sticky=True)
    assert kept_sticky(settled, CHILD) == kept_sticky(settled, None) == settled


def test_a_child_is_there_once_its_parent_says_so() -> None:
    before = existing(ROWS, [META, WHOLE])
    assert tiles(before)
    assert len(before) == 2
    after = existing(ROWS, [META, LOW])
    assert tiles(after)
    assert descriptor_of(CHILD) in after


def test_of_a_parent_elsewhere_the_row_is_believed_until_it_tells() -> None:
    found = existing(ROWS, [META])
    assert tiles(found)
    assert WHOLE in found


def test_what_a_shard_says_of_itself_counts_more_than_its_row() -> None:
    rows = {row.id: row for row in (row_of(META), row_of(WHOLE))}
    found = existing(rows, [META, LOW, ShardDescriptor(ShardId(2), Span(b"m", b"s"), 2)])
    assert tiles(found)
    assert len(found) == 3
