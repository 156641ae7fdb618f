"""What a node answers for the replicas it holds, to the node that serves: see the package.

Reads are answered by any replica that has applied the entry named; what is to be ordered, by the leader once it serves.
Nothing here waits but for an entry to be applied.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from shardforge.errors import DatabaseError
from shardforge.ids import NodeId
from shardforge.ports import Blocking, Network
from shardforge.shard.command import Begin, Collect, Command, Outcome, Run
from shardforge.shard.host import Host
from shardforge.shard.remote import calls
from shardforge.shard.remote.calls import (
    Answer,
    BeginTenure,
    Call,
    Deposed,
    Elsewhere,
    Found,
    Head,
    Otherwise,
    Pairs,
    PairsIn,
    Reached,
    ReadKeys,
    Rows,
    Scanned,
    ScanSpans,
    Submit,
    Sweep,
    Swept,
    Versions,
    VersionsIn,
    Where,
)
from shardforge.shard.replica import Replica
from shardforge.storage import mvcc

ROWS_BYTES_MAX = 1 << 20
"""A scan's answer is sent once it has so many bytes of rows."""
SIFTED_BYTES_MAX = 4 << 20
SIFTED_ROWS_MAX = 2_048
"""So much is read for an answer of which a sieve leaves little: some ten milliseconds of the node's time."""

Passes = Callable[[bytes, bytes], bool]
"""Whether the row with this key and value is to be sent. Never raises."""
Sieves = Callable[[bytes], Passes]
"""What the bytes of a sieve mean. Raises DatabaseError."""

T = TypeVar("T")

log = logging.getLogger("shardforge.shard")


class ShardService:
    """The replicas of one node, for whoever serves."""

    def __init__(self, host: Host, network: Network, blocking: Blocking, sieves: Sieves) -> None:
        self._host = host
        self._blocking = blocking
        self._sieves = sieves
        network.on_call(calls.METHOD, self._on_call)

    async def _on_call(self, _sender: NodeId, body: bytes) -> bytes:
        return calls.encode(await self.answer(calls.decode_call(body)))

    async def answer(self, call: Call) -> Answer:
        """Answer one call. Until it first waits it runs at once, so that commands keep their order."""
        replica = self._host.find(call.head.shard)
        if replica is None or replica.failure is not None:
            return Elsewhere(NodeId(0))
        if isinstance(call, BeginTenure):
            return await self._begin(replica, call.head.tenure)
        if isinstance(call, Submit):
            return await self._submit(replica, call)
        if isinstance(call, Where):
            return self._where(replica, call.head)
        found = self._unfit(replica, call.head)
        if found is not None:
            return found
        if isinstance(call, Sweep):
            return await self._sweep(replica, call)
        return self._read(replica, call)

    # ---- what is ordered -------------------------------------------------------------------------

    async def _begin(self, replica: Replica, tenure: int) -> Answer:
        if tenure < self._host.tenure:
            return Deposed(self._host.tenure)
        self._host.hear_tenure(tenure)
        return await self._ordered(replica, Begin(tenure), tenure)

    async def _submit(self, replica: Replica, call: Submit) -> Answer:
        tenure = call.head.tenure
        if tenure < self._host.tenure:
            return Deposed(self._host.tenure)
        return await self._ordered(replica, Run(tenure, call.first, call.commands), tenure)

    async def _ordered(self, replica: Replica, command: Command, tenure: int) -> Answer:
        if not replica.serving_term:
            return _elsewhere(replica)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if answer.done():
                return
            # Refused may mean that it was not ordered at all, as while leadership is handed over.
            begun = replica.state.tenure >= tenure and outcome is not Outcome.UNKNOWN
            answer.set_result(_reached(replica, tenure) if begun else _elsewhere(replica))

        replica.propose(command, done)
        return await answer

    @staticmethod
    def _where(replica: Replica, head: Head) -> Answer:
        begun = replica.serving_term and replica.state.tenure >= head.tenure
        return _reached(replica, head.tenure) if begun else _elsewhere(replica)

    async def _sweep(self, replica: Replica, call: Sweep) -> Answer:
        if not replica.serving_term:
            return _elsewhere(replica)
        end = replica.descriptor.span.end
        found = await self._blocking.run(
            lambda: mvcc.garbage(replica.engine, call.start, end, call.horizon, call.pairs_max)
        )
        if found.batch:
            replica.propose(Collect([key for key, _ in found.batch], call.horizon), _ignore)
        return Swept(len(found.batch), found.resume or b"")

    # ---- what is read ----------------------------------------------------------------------------

    @staticmethod
    def _unfit(replica: Replica, head: Head) -> Answer | None:
        """Why this replica cannot answer a read."""
        state = replica.state
        if state.tenure > head.tenure:
            return Deposed(state.tenure)
        if state.tenure < head.tenure or state.index < head.index:
            return _elsewhere(replica)
        if replica.descriptor.epoch != head.epoch:
            return Otherwise(replica.descriptor)
        return None

    def _read(self, replica: Replica, call: Call) -> Answer:
        engine = replica.engine
        if isinstance(call, ReadKeys):
            return Found([_version(replica, key, call.timestamp) for key in call.keys])
        if isinstance(call, ScanSpans):
            return _scanned(replica, call, self._passes(call.sieve))
        if isinstance(call, VersionsIn):
            return _versions(replica, call)
        assert isinstance(call, PairsIn), "every other call is answered elsewhere"
        found = list(islice(engine.scan(call.start, call.end), call.count_max))
        return Pairs(found, replica.state.index)

    def _passes(self, sieve: bytes) -> Passes | None:
        if not sieve:
            return None
        try:
            return self._sieves(sieve)
        except DatabaseError as error:  # whoever asks sifts again
            log.debug("a sieve cannot be read, so all rows are sent: %s", error)
            return None


def _version(replica: Replica, key: bytes, timestamp: int) -> tuple[int, bytes | None]:
    known = replica.cache.get(key)
    if known is not None and known[0] <= timestamp:
        return known
    found = mvcc.version_at(replica.engine, key, timestamp)
    return (0, None) if found is None else (found.timestamp, found.value)


def _versions(replica: Replica, call: VersionsIn) -> Answer:
    """Whole keys: the last one's versions may be more than asked for."""
    found: list[tuple[bytes, int]] = []
    for version in mvcc.versions_in(replica.engine, call.start, call.end, call.since, call.until):
        if len(found) >= call.count_max and version.key != found[-1][0]:
            return Versions(found, version.key)
        found.append((version.key, version.timestamp))
    return Versions(found, b"")


def _scanned(replica: Replica, call: ScanSpans, passes: Passes | None) -> Answer:
    """A page ends with the rows that fit into it, or with what may be read for it; so its last row may not be sent."""
    rows: Rows = []
    bytes_left, read_left = ROWS_BYTES_MAX, SIFTED_BYTES_MAX
    rows_left = SIFTED_ROWS_MAX if passes is not None else call.rows_max
    for position, (start, end) in enumerate(call.spans):
        for row in mvcc.scan(replica.engine, start, end, call.timestamp, reverse=call.reverse):
            size = len(row[0]) + len(row[2])
            rows_left -= 1
            read_left -= size
            if passes is None or passes(row[0], row[2]):
                rows.append(row)
                bytes_left -= size
            if len(rows) >= call.rows_max or bytes_left <= 0 or rows_left <= 0 or read_left <= 0:
                return Scanned(rows, position, row[0])
    return Scanned(rows, -1, b"")


def _reached(replica: Replica, tenure: int) -> Answer:
    state = replica.state
    if state.tenure > tenure:
        return Deposed(state.tenure)
    assert state.tenure == tenure, "it began here before anything else was asked"
    return Reached(state.index, state.number, state.refused, replica.descriptor, replica.sealed)


def _elsewhere(replica: Replica) -> Answer:
    return Elsewhere(replica.lead or NodeId(0))


def _ignore(_: Outcome) -> None:
    """What a lost Collect names is found again by the next sweep."""
