"""Reading a transaction's view: a snapshot of the shards, with its own writes on top.

`scan_span` merges its writes, and what is committed but not yet
resolved, into the engine's versions; `ReadSet` remembers what a serializable transaction has seen, absent
keys included, for rule R3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import islice

from shardforge.errors import ConsensusError
from shardforge.ids import INFINITY, Timestamp, TxnId
from shardforge.shard.command import Intent, decode_intent
from shardforge.shard.pending import Mark
from shardforge.shard.remote.replica import RemoteReplica, StaleSpanError
from shardforge.shard.router import Router
from shardforge.storage import mvcc
from shardforge.storage.newest_cache import Entry
from shardforge.txn.participant import Participant
from shardforge.txn.sieve import Sieve

CHUNK_MIN = 64
CHUNK_MAX = 4096
INTENTS_MAX = 4096
"""A scan looks at so many intents together, where they have to be read."""
INTENTS_A_PAGE = 2000
ROWS_BEFORE_YIELD = 8_192
"""A scan lets other tasks run after this many rows."""

Chunk = list[tuple[bytes, bytes]]


class ReadSet:
    """Keys and spans that were read. A span's bounds grow as its scan goes on."""

    __slots__ = ("keys", "spans")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.spans: list[list[bytes]] = []

    def open_span(self, start: bytes, end: bytes, *, reverse: bool) -> list[bytes]:
        """A span of which nothing has been read yet."""
        span = [end, end] if reverse else [start, start]
        self.spans.append(span)
        return span


async def settled(
    router: Router[Participant], key: bytes, timestamp: Timestamp
) -> tuple[Participant, Mark | None]:
    """Wait until no open mark hides `key` from a reader at `timestamp`; the shard, and the committed mark, if any."""
    while True:
        participant = router.shard_of(key)
        if not participant.term:
            await begun(participant)
            continue
        mark = participant.visible(key, timestamp)
        if mark is None or mark.committed:
            return participant, mark
        await wait_for(mark)


async def begun(participant: Participant) -> None:
    """Return when the shard is served, or it is worth looking up again. Raises ConsensusError 57P03."""
    remote = participant.remote
    if remote is None or participant.closed:
        participant.check_serving()
    else:
        await remote.begun()


async def wait_for(mark: Mark) -> None:
    """Return when the mark is settled one way or the other, or refuse if nobody can settle it."""
    if mark.stranded:
        raise ConsensusError(
            "the outcome of a transaction on this row is not known",
            hint="A shard of this node stopped after an error; see the system log.",
        )
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    mark.when_settled(lambda: None if future.done() else future.set_result(None))
    await future


async def newest_settled(router: Router[Participant], key: bytes) -> Entry:
    """The newest committed version of `key`, whatever it takes to know it."""
    while True:
        participant, mark = await settled(router, key, INFINITY)
        try:
            if mark is not None:
                found = await committed_by(participant, mark, key)
                if found is not None:
                    return found
            if participant.remote is None:
                return participant.newest(key)
            return await participant.newest_of(key)
        except StaleSpanError:
            await moved(participant)


async def read_settled(
    router: Router[Participant], key: bytes, timestamp: Timestamp
) -> bytes | None:
    """The value of `key` at `timestamp`, whatever it takes to know it."""
    while True:
        participant, mark = await settled(router, key, timestamp)
        try:
            if mark is not None:
                found = await committed_by(participant, mark, key)
                if found is not None:
                    return found[1]
            if participant.remote is None:
                return participant.read_now(key, timestamp)
            return await participant.read(key, timestamp)
        except StaleSpanError:
            await moved(participant)


async def committed_by(participant: Participant, mark: Mark, key: bytes) -> Entry | None:
    """What a committed mark's transaction wrote; None when the engine's versions include it by now."""
    if mark.values is not None:
        return mark.timestamp, mark.values[key]
    intent = await participant.intent(key)
    return None if intent is None or intent.txn != mark.txn else (mark.timestamp, intent.value)


async def intent_on(router: Router[Participant], key: bytes) -> Intent | None:
    """The intent on a key."""
    while True:
        participant = router.shard_of(key)
        try:
            return await participant.intent(key)
        except StaleSpanError:
            await moved(participant)


async def intents_in(
    participant: Participant, start: bytes, end: bytes, *, reverse: bool = False
) -> AsyncGenerator[tuple[bytes, Intent], None]:
    """The intents of a span in key order, or against it; of a shard that is led here without waiting."""
    if participant.remote is None:
        engine = participant.replica.engine
        for key, data in mvcc.intents(engine, start, end, reverse=reverse):
            yield key, decode_intent(data)
        return
    low, high = b"i" + start, b"i" + end
    if reverse:
        for key, data in reversed(await participant.remote.pairs(low, high)):
            yield key[1:], decode_intent(data)
        return
    async for page in participant.remote.pages(low, high, INTENTS_A_PAGE):
        for key, data in page:
            yield key[1:], decode_intent(data)


async def moved(participant: Participant) -> None:
    """Return when a shard elsewhere, which is not what it was thought to be, is worth looking up again."""
    assert participant.remote is not None, "it is led elsewhere"
    await participant.remote.moved()


async def settled_part(
    router: Router[Participant],
    start: bytes,
    end: bytes,
    timestamp: Timestamp,
    *,
    reverse: bool,
    own: TxnId | None = None,
) -> tuple[Participant, bytes, bytes, dict[bytes, bytes | None]]:
    """Wait until no open mark hides anything of the first part of a span (the last one in reverse).

    The part's shard and bounds, and what is committed there and not in the engine yet. The intents of `own` count too.
    """
    while True:
        participant, low, high = router.part(start, end, reverse=reverse)
        overlay: dict[bytes, bytes | None] = {}
        if not participant.term:
            await begun(participant)
            continue
        if not participant.pending.marks and own is None:
            return participant, low, high, overlay
        marks = participant.pending.visible_in(low, high, timestamp)
        still_open = next((mark for mark in marks if not mark.committed), None)
        if still_open is not None:
            await wait_for(still_open)
            continue
        owners = [mark.txn for mark in marks if mark.values is None]
        if own is not None:
            owners.append(own)
        intents: dict[TxnId, dict[bytes, bytes | None]] = {txn: {} for txn in owners}
        if owners:
            try:
                low, high = await _add_intents(participant, low, high, intents, reverse=reverse)
            except StaleSpanError:
                await moved(participant)
                continue
        for mark in marks:
            values = mark.values
            if values is None:
                overlay.update(intents[mark.txn])
            else:
                overlay.update((key, values[key]) for key in mark.keys_in(low, high))
        if own is not None:
            overlay.update(intents[own])
        return participant, low, high, overlay


async def _add_intents(
    participant: Participant,
    low: bytes,
    high: bytes,
    found: dict[TxnId, dict[bytes, bytes | None]],
    *,
    reverse: bool,
) -> tuple[bytes, bytes]:
    """Add the intents of some transactions to `found`, up to so many; the bounds of the part where these are all."""
    left = INTENTS_MAX
    async with aclosing(intents_in(participant, low, high, reverse=reverse)) as intents:
        async for key, intent in intents:
            of_one = found.get(intent.txn)
            if of_one is None:
                continue
            of_one[key] = intent.value
            left -= 1
            if not left:
                return (key, high) if reverse else (low, key + b"\x00")
    return low, high


async def scan_span(
    participant: Participant,
    start: bytes,
    end: bytes,
    timestamp: Timestamp,
    overlay: Mapping[bytes, bytes | None],
    sieve: Sieve | None,
    *,
    reverse: bool,
    first_chunk: int,
) -> AsyncIterator[Chunk]:
    """Chunks of one shard's part of a scan, in order, with what lies over the engine's versions.

    The engine's iterator is a state of the moment when no open mark was visible (`settled_part`, just before);
    whatever is marked later draws a timestamp above the reader's, so one look at the marks is enough.
    """
    if participant.remote is not None:
        rows_max = first_chunk if sieve is None else sieve.first_page(first_chunk)
        data = b"" if sieve is None else sieve.data
        pages = _pages(
            participant.remote, start, end, timestamp, data, reverse=reverse, rows_max=rows_max
        )
        async for chunk in _merged(pages, overlay, reverse=reverse):
            yield chunk
        return
    versions = participant.open_scan(start, end, timestamp, reverse=reverse)
    rows: Iterator[tuple[bytes, bytes]] = ((key, value) for key, _, value in versions)
    if overlay:
        rows = _merge(rows, sorted(overlay.items(), reverse=reverse), reverse=reverse)
    size = first_chunk
    since_yield = 0
    while chunk := list(islice(rows, size)):
        yield chunk
        if len(chunk) < size:
            return
        since_yield += size
        if since_yield >= ROWS_BEFORE_YIELD:
            since_yield = 0
            await asyncio.sleep(0)
        size = min(size * 4, CHUNK_MAX)


async def _pages(
    remote: RemoteReplica,
    start: bytes,
    end: bytes,
    timestamp: Timestamp,
    sieve: bytes,
    *,
    reverse: bool,
    rows_max: int,
) -> AsyncIterator[tuple[Chunk, bytes]]:
    """Chunks of a span of a shard elsewhere, each with the bound up to which it is all that passes."""
    while True:
        page = await remote.scan(((start, end),), timestamp, rows_max, reverse=reverse, sieve=sieve)
        chunk = [(key, value) for key, _, value in page.rows]
        if page.position < 0:
            yield chunk, start if reverse else end
            return
        if reverse:
            end = page.bound
        else:
            start = page.bound + b"\x00"
        yield chunk, end if reverse else start
        rows_max = min(rows_max * 4, CHUNK_MAX)


async def _merged(
    pages: AsyncIterator[tuple[Chunk, bytes]],
    overlay: Mapping[bytes, bytes | None],
    *,
    reverse: bool,
) -> AsyncIterator[Chunk]:
    """The pages with what lies over them."""
    over = sorted(overlay.items(), reverse=reverse)
    at = 0
    async for chunk, bound in pages:
        upto = at
        while upto < len(over) and (over[upto][0] >= bound if reverse else over[upto][0] < bound):
            upto += 1
        part = over[at:upto]
        at = upto
        merged = list(_merge(iter(chunk), part, reverse=reverse)) if part else chunk
        if merged:
            yield merged


def _merge(
    rows: Iterator[tuple[bytes, bytes]],
    overlay: Sequence[tuple[bytes, bytes | None]],
    *,
    reverse: bool,
) -> Iterator[tuple[bytes, bytes]]:
    """Both sources in order; where both have a key the overlay wins, and None hides it."""
    row = next(rows, None)
    for key, value in overlay:
        while row is not None and (row[0] > key if reverse else row[0] < key):
            yield row
            row = next(rows, None)
        if row is not None and row[0] == key:
            row = next(rows, None)
        if value is not None:
            yield key, value
    if row is not None:
        yield row
    yield from rows
