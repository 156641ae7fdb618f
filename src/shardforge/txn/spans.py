"""Reading many spans in one go, as a hash-sharded table takes: one view of each shard, a seek for each span.

`Transaction.scan` is the general way, and is what a span falls back to when something has to be merged or waited for:
own writes in it, open marks in its shard, a span over several shards, or a transaction that remembers what it reads.
Spans of one shard that is led elsewhere are asked for together, a page of rows a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING

from shardforge.ids import Timestamp
from shardforge.shard.remote.replica import RemoteReplica, StaleSpanError
from shardforge.storage.engine import EngineClosedError, Snapshot
from shardforge.txn.participant import Participant
from shardforge.txn.reads import (
    CHUNK_MAX,
    CHUNK_MIN,
    ROWS_BEFORE_YIELD,
    Chunk,
    moved,
    scan_span,
    settled_part,
)
from shardforge.txn.sieve import Sieve

if TYPE_CHECKING:
    from shardforge.txn.coordinator import Coordinator
    from shardforge.txn.transaction import Transaction


async def scan_spans(
    transaction: Transaction,
    coordinator: Coordinator,
    spans: Sequence[tuple[bytes, bytes]],
    *,
    reverse: bool,
    sieve: Sieve | None,
) -> AsyncGenerator[Chunk, None]:
    """Chunks of one span after the other, each in key order (or against it)."""
    timestamp = await transaction.read_timestamp()
    coordinator.snapshots.pin(timestamp)
    views: dict[tuple[Participant, int], Snapshot] = {}  # a merge puts more into a shard
    found: Chunk = []
    since_yield = 0
    try:
        left = deque(spans)
        while left:
            far = far_run(transaction, coordinator, left)
            if far is not None:
                if found:
                    yield found
                    found = []
                async for chunk in _far_pages(far, left, timestamp, sieve, reverse=reverse):
                    yield chunk
                continue
            start, end = left.popleft()
            parts = coordinator.router.shards_of(start, end)
            participant = parts[0][0]
            simple = len(parts) == 1 and transaction.reads is None and transaction.streamed is None
            place = participant, coordinator.router.generation
            view = views.get(place)
            if (
                simple and view is None and participant.local and participant.term
                and not participant.pending.marks
            ):  # fmt: skip
                # Whatever is marked later draws a timestamp above this reader's.
                view = views[place] = participant.view()
            if view is None or not simple or transaction.writes.in_span(start, end):
                chunks = transaction.scan(start, end, reverse=reverse, sieve=sieve)
                sifted = None if participant.remote is None else sieve
                enough = CHUNK_MAX if sifted is None else sifted.first_page(CHUNK_MAX)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        found += chunk
                        if len(found) >= enough:
                            yield found
                            found = []
                continue
            rows = participant.scan_view(view, start, end, timestamp, reverse=reverse)
            while part := [(key, value) for key, _, value in islice(rows, CHUNK_MAX)]:
                found += part
                since_yield += len(part)
                if len(found) >= CHUNK_MAX:
                    yield found
                    found = []
                if since_yield >= ROWS_BEFORE_YIELD:
                    since_yield = 0
                    await asyncio.sleep(0)
                if len(part) < CHUNK_MAX:
                    break
        if found:
            yield found
    finally:
        for view in views.values():
            view.close()
        coordinator.snapshots.unpin(timestamp)


def far_run(
    transaction: Transaction, coordinator: Coordinator, spans: Iterable[tuple[bytes, bytes]]
) -> tuple[RemoteReplica, int] | None:
    """The shard elsewhere that holds the first of the spans, and how many of them can be asked for together."""
    if transaction.reads is not None or transaction.streamed is not None:
        return None
    found: Participant | None = None
    count = 0
    for start, end in spans:
        participant, _, high = coordinator.router.part(start, end)
        if participant.remote is None or not participant.term or participant.pending.marks:
            break
        if (found is not None and participant is not found) or high < end:
            break
        if transaction.writes.in_span(start, end):
            break
        found = participant
        count += 1
    if found is None or found.remote is None:
        return None
    return found.remote, count


async def _far_pages(
    far: tuple[RemoteReplica, int],
    left: deque[tuple[bytes, bytes]],
    timestamp: Timestamp,
    sieve: Sieve | None,
    *,
    reverse: bool,
) -> AsyncGenerator[Chunk, None]:
    """Pages of rows of the first spans of `left`, which keeps what has not been read."""
    remote, count = far
    rest = [left.popleft() for _ in range(count)]
    data, rows = (b"", CHUNK_MAX) if sieve is None else (sieve.data, sieve.first_page(CHUNK_MAX))
    try:
        while rest:
            page = await remote.scan(rest, timestamp, rows, reverse=reverse, sieve=data)
            rows = min(rows * 4, CHUNK_MAX)
            if page.position < 0:
                rest = []
            else:
                (start, end), bound = rest[page.position], page.bound
                rest[: page.position + 1] = [(start, bound) if reverse else (bound + b"\x00", end)]
            if page.rows:
                yield [(key, value) for key, _, value in page.rows]
    except StaleSpanError:
        await remote.moved()
    finally:
        left.extendleft(reversed(rest))


async def scan(
    transaction: Transaction,
    coordinator: Coordinator,
    start: bytes,
    end: bytes,
    *,
    reverse: bool,
    limit: int | None,
    sieve: Sieve | None,
) -> AsyncGenerator[Chunk, None]:
    """Chunks of (key, value) of one span in key order, or against it; own writes included."""
    timestamp = transaction.snapshot or await transaction.read_timestamp()
    span = None
    if transaction.reads is not None:
        span = transaction.reads.open_span(start, end, reverse=reverse)
    own = transaction.writes.in_span(start, end)
    streamed = None if transaction.streamed is None else transaction.id
    router, first, last = coordinator.router, start, end
    left = limit
    snapshots = coordinator.snapshots
    snapshots.pin(timestamp)
    try:
        while first < last:
            participant, low, high, overlay = await settled_part(
                router, first, last, timestamp, reverse=reverse, own=streamed
            )
            overlay.update(
                own
                if low == start and high == end
                else {k: v for k, v in own.items() if low <= k < high}
            )
            chunks = scan_span(
                participant,
                low,
                high,
                timestamp,
                overlay,
                sieve,
                reverse=reverse,
                first_chunk=CHUNK_MIN if left is None else max(1, min(left, CHUNK_MIN)),
            )
            try:
                async for found in chunks:
                    chunk = found if left is None else found[:left]
                    if span is not None:
                        _grow(span, chunk[-1][0], reverse=reverse)
                    if reverse:
                        last = chunk[-1][0]
                    else:
                        first = chunk[-1][0] + b"\x00"
                    yield chunk
                    if left is not None:
                        left -= len(chunk)
                        if left <= 0:
                            return
            except StaleSpanError:
                await moved(participant)
                continue
            except EngineClosedError:  # it was led here
                if participant in router.shards:
                    raise
                continue
            if reverse:
                last = low
            else:
                first = high
            if span is not None:
                span[0 if reverse else 1] = low if reverse else high
    finally:
        snapshots.unpin(timestamp)


def _grow(span: list[bytes], key: bytes, *, reverse: bool) -> None:
    if reverse:
        span[0] = key
    else:
        span[1] = key + b"\x00"
