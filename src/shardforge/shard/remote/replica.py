"""A shard that is led elsewhere, as the serving node uses it in one tenure: what it asks, whom, and how often.

It finds the leader by asking: whoever is not says who is, as far as it knows. Commands go through a `Stream`; reads
name the newest entry known and may be answered by any replica that has applied it. The newest versions of what is read
and written stay in a cache here: nobody else writes in a tenure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from shardforge.errors import ConsensusError, DatabaseError
from shardforge.ids import INFINITY, NodeId, ShardId, Timestamp
from shardforge.ports import Clock
from shardforge.raft.messages import ConfState
from shardforge.shard.application import Prepared, nothing_prepared
from shardforge.shard.command import Clear, Command, Commit, CommitRecord, Numbered, Resolve, Split
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.proposals import Done
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
    Scanned,
    ScanSpans,
    Submit,
    Sweep,
    Swept,
    Versions,
    VersionsIn,
    Where,
)
from shardforge.shard.remote.load import Load
from shardforge.shard.remote.stream import Stream
from shardforge.storage.engine import Engine
from shardforge.storage.newest_cache import CacheMemory, Entry, NewestCache

PAUSE_SECONDS = 0.02
"""Before the next node is asked, when the last one could not help."""
READ_SECONDS = 10.0
"""How long a read looks for somebody who can answer it."""
CACHE_BYTES = 32 << 20
KEYS_MAX = 1_000
PAIRS_MAX = 1_000
VERSIONS_MAX = 2_000

Ask = Callable[[NodeId, Call], Awaitable[Answer]]
"""Have a node, this one included, answer a call. Raises DatabaseError."""

log = logging.getLogger("shardforge.shard")


class StaleSpanError(ConsensusError):
    """The shard was split or merged since it was looked up: look again."""


class Neighbours:
    """What the remote shards of a tenure share: how to ask, whom, and what ends the tenure."""

    def __init__(
        self, tenure: int, ask: Ask, holders: Callable[[ShardId], Sequence[NodeId]], clock: Clock,
        deposed: Callable[[int], None],
    ) -> None:  # fmt: skip
        """`holders`: who may have a replica of a shard, the likeliest first; `deposed`: a younger tenure has begun."""
        self.tenure = tenure
        self.ask = ask
        self.holders = holders
        self.clock = clock
        self.deposed = deposed
        self.memory = CacheMemory(CACHE_BYTES)
        """What the newest versions of all of them may take."""


class RemoteReplica:
    """One shard elsewhere. `attach` makes it usable."""

    serving_term = 0
    """It is not led here: nothing is answered without waiting."""
    failure: Exception | None = None

    def __init__(self, descriptor: ShardDescriptor, neighbours: Neighbours) -> None:
        self.descriptor = descriptor
        self.cache = NewestCache(neighbours.memory)
        self.index = 0
        """The newest entry that the serving node was told of."""
        self.tenure = 0
        """The tenure, once it has begun in the shard."""
        self.lead: NodeId | None = None
        self.members = ConfState(voters=tuple(descriptor.voters))
        self.size_bytes = 0
        """As of its leader's last report."""
        self.load = Load(descriptor.id)
        self.prepared: Prepared = nothing_prepared
        self._with = neighbours
        self.closed = False
        self.merged = False
        """Whether it was closed because it is a part of another shard by now."""
        self.sealed = False
        """Whether it was sealed when the tenure began in it."""
        self._waiters: list[asyncio.Future[None]] = []
        self._stream = Stream(self._submit, self._where, self._reach, self._learn)

    @property
    def id(self) -> ShardId:
        """The shard's id."""
        return self.descriptor.id

    @property
    def engine(self) -> Engine:
        """Not here."""
        raise AssertionError(f"shard {self.id} is read by message")

    def close(self) -> None:
        """The tenure has ended, or the shard is led here from now on."""
        if self.closed:
            return
        self.closed = True
        self.tenure = 0
        self._with.memory.leave(self.cache)
        self._stream.close()
        self._wake()

    # ---- what is ordered -------------------------------------------------------------------------

    async def attach(self) -> None:
        """Let the tenure begin in the shard; returns when it has, however long that takes, or this is closed."""
        answer = None
        while answer is None:
            if self.closed:
                return
            answer = await self._reached_by(lambda head: BeginTenure(head))
        self._reach(answer.index)
        self.descriptor = answer.descriptor
        self.sealed = answer.sealed
        self._stream.begin(answer.number)

    def open(self) -> None:
        """Let transactions in: what older tenures prepared is known."""
        if not self.closed:
            self.tenure = self._with.tenure
            self._wake()

    async def begun(self) -> None:
        """Return when the tenure has begun here. Raises ConsensusError 57P03 when it does not for a while."""
        if not self.closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            timer = asyncio.get_running_loop().call_later(
                READ_SECONDS, _give_up, waiter, self._unreachable()
            )
            try:
                await waiter
            finally:
                timer.cancel()

    async def moved(self) -> None:
        """Return after a moment: the shard was split or merged, and the map is about to say so. Raises 57P03."""
        if self.closed and not self.merged:
            raise self._unreachable()
        await self._with.clock.sleep(PAUSE_SECONDS)

    def _unreachable(self) -> ConsensusError:
        return ConsensusError(
            f"shard {self.id} cannot be reached at present",
            hint="Try again in a moment, or look at it with: shardforge cluster status",
        )

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def propose(
        self, command: Command, done: Done, stored: Callable[[], None] | None = None
    ) -> None:
        """Order a command. `stored` is never called: a leader elsewhere tells only what a majority has."""
        assert not isinstance(command, Split), "its leader splits a shard"
        self.load.ordered(command)
        self._stream.propose(command, done)  # type: ignore[arg-type]

    def defer(self, command: Command, done: Done) -> None:
        """Order a command that nobody waits for."""
        self._stream.defer(command, done)  # type: ignore[arg-type]

    async def idle(self) -> None:
        """Return when no command is under way."""
        await self._stream.idle()

    async def hold(self) -> None:
        """Return when no command is under way, nor will be until `release`."""
        while not self._stream.hold():
            await self._stream.idle()

    def release(self) -> None:
        """Order what was proposed meanwhile."""
        self._stream.release()

    def _reach(self, index: int) -> None:
        self.index = max(self.index, index)

    def _learn(self, command: Numbered) -> None:
        """Keep the cache true to what was applied."""
        wrote = self.cache.wrote
        if isinstance(command, Commit | CommitRecord):
            for key, value in command.writes:
                wrote(key, command.timestamp, value)
        elif isinstance(command, Resolve):
            values = self.prepared(command.txn)
            if values is None:
                self.cache.forget(command.keys)
            elif command.timestamp:
                for key in command.keys:
                    wrote(key, command.timestamp, values[key])
        elif isinstance(command, Clear):
            self.cache.clear()

    async def _submit(self, first: int, commands: Sequence[Numbered]) -> Reached | None:
        target = self._likely()
        answer = await self._ask(target, Submit(self._head(), first, commands))
        return self._leaders(target, answer)

    async def _where(self) -> Reached | None:
        await self._with.clock.sleep(
            PAUSE_SECONDS
        )  # who could not order them just now is given a moment
        return await self._reached_by(lambda head: Where(head))

    async def _reached_by(self, call: Callable[[Head], Call]) -> Reached | None:
        """What the leader says, if the likeliest node is the leader; else after a moment None, and another is next."""
        target = self._likely()
        try:
            answer = await self._ask(target, call(self._head()))
        except DatabaseError as error:
            log.debug("shard %d: node %d: %s", self.id, target, error)
            answer = Elsewhere(NodeId(0))
        found = self._leaders(target, answer)
        if found is None:
            await self._with.clock.sleep(PAUSE_SECONDS)
        return found

    # ---- what is read ----------------------------------------------------------------------------

    async def newest(self, key: bytes) -> Entry:
        """The newest version of a key; (0, None): it has none."""
        known = self.cache.get(key)
        if known is not None:
            return known
        as_of = self.cache.writes
        found = await self.read((key,), INFINITY)
        self.cache.fill(key, found[0], as_of)
        return found[0]

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Cache the newest versions of many keys, as far as nothing is written meanwhile."""
        missing = [key for key in keys if self.cache.get(key) is None]
        for start in range(0, len(missing), KEYS_MAX):
            part = missing[start : start + KEYS_MAX]
            as_of = self.cache.writes
            for key, entry in zip(part, await self.read(part, INFINITY), strict=True):
                self.cache.fill(key, entry, as_of)

    async def read(self, keys: Sequence[bytes], timestamp: Timestamp) -> Sequence[Entry]:
        """The newest version of each key at or before a timestamp."""
        for key in keys:
            self.load.asked(key)
        answer = await self._read(lambda head: ReadKeys(head, keys, timestamp))
        assert isinstance(answer, Found), answer
        return answer.versions

    async def scan(
        self,
        spans: Sequence[tuple[bytes, bytes]],
        timestamp: Timestamp,
        rows_max: int,
        *,
        reverse: bool,
        sieve: bytes = b"",
    ) -> Scanned:
        """A page of rows, at most so many; without those that do not pass the sieve, unless it cannot be used there."""
        for start, _ in spans:
            self.load.asked(start)
        answer = await self._read(
            lambda head: ScanSpans(head, spans, timestamp, reverse, rows_max, sieve)
        )
        assert isinstance(answer, Scanned), answer
        return answer

    async def versions_in(
        self,
        start: bytes,
        end: bytes,
        since: Timestamp,
        until: Timestamp,
        count_max: int = VERSIONS_MAX,
    ) -> Versions:
        """A page of (key, timestamp) of versions with since < timestamp <= until."""
        answer = await self._read(
            lambda head: VersionsIn(head, start, end, since, until, count_max)
        )
        assert isinstance(answer, Versions), answer
        return answer

    async def pairs(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """All pairs of the engine's own span."""
        return [pair async for page in self.pages(start, end, PAIRS_MAX) for pair in page]

    async def pages(
        self, start: bytes, end: bytes, pairs_max: int
    ) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        """The same, so many at a time. What is read later is no older: an intent that is gone is a version by then."""
        while start:
            at = start
            answer = await self._read(lambda head, at=at: PairsIn(head, at, end, pairs_max))  # type: ignore[misc]
            assert isinstance(answer, Pairs), answer
            self._reach(answer.index)
            start = answer.pairs[-1][0] + b"\x00" if len(answer.pairs) == pairs_max else b""
            yield answer.pairs

    async def sweep(self, start: bytes, horizon: Timestamp, pairs_max: int) -> Swept:
        """Have the leader collect the garbage among the first versions from a key on."""
        answer = await self._read(lambda head: Sweep(head, start, horizon, pairs_max))
        assert isinstance(answer, Swept), answer
        return answer

    async def _read(self, call: Callable[[Head], Call]) -> Answer:
        """An answer of any replica that has come far enough. Raises StaleSpanError, ConsensusError 57P03."""
        deadline = self._now() + READ_SECONDS
        while True:
            target = self._likely()
            try:
                answer = await self._ask(target, call(self._head()))
            except DatabaseError as error:
                log.debug("shard %d: node %d: %s", self.id, target, error)
                answer = Elsewhere(NodeId(0))
            if isinstance(answer, Otherwise):
                raise StaleSpanError(f"shard {self.id} was split or merged")
            if not isinstance(answer, Elsewhere | Deposed):
                return answer
            self._leaders(target, answer)
            if self.merged:
                raise StaleSpanError(f"shard {self.id} is a part of another")
            if self.closed or self._now() > deadline:
                raise self._unreachable()
            await self._with.clock.sleep(PAUSE_SECONDS)

    # ---- whom to ask -----------------------------------------------------------------------------

    def _now(self) -> float:
        return self._with.clock.monotonic_ns() / 1e9

    def _head(self) -> Head:
        return Head(self.id, self._with.tenure, self.descriptor.epoch, self.index)

    async def _ask(self, node: NodeId, call: Call) -> Answer:
        if self.closed or not node:
            raise ConsensusError(f"shard {self.id} is not served by this node any more")
        return await self._with.ask(node, call)

    def _likely(self) -> NodeId:
        if self.lead is None:
            self.lead = next(iter(self._with.holders(self.id)), None)
        return self.lead or NodeId(0)

    def _leaders(self, asked: NodeId, answer: Answer) -> Reached | None:
        """What the leader said; None when the one asked is not, or is not known to be: another is asked next."""
        if isinstance(answer, Reached):
            return answer
        if isinstance(answer, Deposed):
            self._with.deposed(answer.tenure)
            return None
        if self.lead == asked:
            hint = answer.lead if isinstance(answer, Elsewhere) else NodeId(0)
            self.lead = hint if hint and hint != asked else self._after(asked)
        return None

    def _after(self, node: NodeId) -> NodeId | None:
        holders = list(self._with.holders(self.id))
        if node in holders:
            holders = holders[holders.index(node) + 1 :] + holders[: holders.index(node)]
        return next(iter(holders), None)


def _give_up(waiter: asyncio.Future[None], error: ConsensusError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
