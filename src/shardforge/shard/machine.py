"""The replicated state machine of one copy of a shard: its engine, and what is remembered of it.

Committed entries are applied in order, each as one engine batch with the applied index in it. Between two entries the
state can be pinned: for a node that pulls it piece by piece (`snapshot`), or for whoever compares replicas.
Invariant: entries are applied each once, and nothing but an entry, or a whole snapshot, changes the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TypeAlias

from shardforge.ids import NodeId, ShardId
from shardforge.shard.application import Application, Prepared, nothing_prepared
from shardforge.shard.command import NOTHING_APPLIED, Command, Outcome, applied_of
from shardforge.shard.description import described, is_sealed
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.files import ShardFiles
from shardforge.shard.log import ShardLog
from shardforge.shard.snapshot import Pins
from shardforge.shard.surroundings import Surroundings
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine
from shardforge.storage.newest_cache import NewestCache

Opened: TypeAlias = tuple[Engine, ShardLog]
"""What `ShardFiles.open` gives, opened by somebody else."""


async def nothing_lost() -> None:
    """Nobody serves here."""


class StateMachine:
    """What one replica of a shard holds. It opens its files."""

    def __init__(
        self, descriptor: ShardDescriptor, files: ShardFiles, surroundings: Surroundings,
        opened: Opened | None = None,
    ) -> None:  # fmt: skip
        self.prepared: Prepared = nothing_prepared
        """What whoever serves knows of intents here."""
        self.recover: Callable[[], Awaitable[None]] = nothing_lost
        """Has whoever serves learn again what leadership lost with it; awaited before anything is served."""
        self.cache = NewestCache(surroundings.cache_memory)
        self.state = NOTHING_APPLIED
        """The last entry applied, and how far the Runs of a tenure have come."""
        self.cleared = 0
        """Entries applied that emptied spans."""
        self._files = files
        self._with = surroundings
        self._clock = surroundings.clock
        self._blocking = surroundings.blocking
        self._installing = False
        self._pins = Pins(surroundings.blocking, surroundings.options.piece_bytes)
        self._moments: dict[int, Callable[[], None]] = {}
        self.engine, self._log = opened or files.open()
        self.descriptor = described(self.engine, descriptor)
        self.sealed = is_sealed(self.engine)
        """Whether nothing changes what it holds, until it is a part of another shard, or is not to be."""
        self.kept_from = mvcc.kept_from(self.engine)
        """Readers below it may miss what was removed."""

    @property
    def installing(self) -> bool:
        """Whether the engine is being replaced by a state from elsewhere: it is not to be read."""
        return self._installing

    @property
    def id(self) -> ShardId:
        """The shard's id."""
        return self.descriptor.id

    @property
    def applied(self) -> int:
        """The index of the last entry applied."""
        return self.state.index

    @property
    def index(self) -> int:
        """The newest entry that is known to be applied."""
        return self.state.index

    @property
    def size_bytes(self) -> int:
        """About how much the engine holds; 0 while it is being replaced."""
        return 0 if self._installing else self.engine.approximate_size()

    def statistics(self) -> dict[str, int]:
        """The engine's figures; none while it is being replaced."""
        return {} if self._installing else self.engine.statistics()

    # ---- applying --------------------------------------------------------------------------------

    def _application(self, term: int) -> Application:
        return Application(
            self.engine, term, self.prepared, self.descriptor, self.state, sealed=self.sealed
        )

    def _carry_out(
        self, application: Application, index: int, commands: Iterable[Command]
    ) -> list[Outcome]:
        """Apply the commands of the entry at `index` in one batch; what became of each."""
        assert index == self.applied + 1, "entries are applied in order, each once"
        outcomes = [application.apply(command) for command in commands]
        if application.cleared:
            self.cleared += 1
            for start, end in application.cleared:
                self.engine.delete_span(start, end)
        self.engine.write(application.finish(index))
        self.state = application.state(index)
        self.sealed = application.sealed
        if application.kept_from:
            self.kept_from = application.kept_from
        if application.merged:
            assert application.shard is not None, "it grew"
            self.descriptor = application.shard
            self.cache.clear()  # it may know of keys that were its own once
        if self._moments and (seen := self._moments.pop(index, None)) is not None:
            seen()
        wrote = self.cache.wrote
        for version in application.versions:
            wrote(*version)
        return outcomes

    def when_applied(self, index: int, seen: Callable[[], None]) -> bool:
        """Call `seen` between entry `index` and the next one. False: it is applied already.

        Never called when a snapshot skips the entry. The latest caller for an index is the one that is called.
        """
        if index <= self.applied:
            return False
        self._moments[index] = seen
        return True

    # ---- the state as a whole --------------------------------------------------------------------

    def _now_us(self) -> int:
        return self._clock.monotonic_ns() // 1000

    def _pin(self) -> bytes:
        now = self._clock.monotonic_ns() / 1e9
        return str(self._pins.pin(self.engine, now)).encode()

    async def snapshot_piece(self, pin: int, after: bytes, node: NodeId) -> tuple[bytes, bool]:
        """A piece of a pinned state, for the node that pulls it, and whether it is the last."""
        return await self._pins.piece(pin, after, node, self._clock.monotonic_ns() / 1e9)

    async def _replace(self, staged: Engine, index: int) -> None:
        """Put a state fetched from elsewhere, as of entry `index`, in the engine's place."""
        self._pins.close()
        old, log = self.engine, self._log
        self._installing = True
        self.engine = await self._blocking.run(lambda: self._files.install(staged, old, log))
        self._installing = False
        self.descriptor = described(self.engine, self.descriptor)
        self.sealed = is_sealed(self.engine)
        self.kept_from = mvcc.kept_from(self.engine)
        self.cache.clear()
        self.state = applied_of(self.engine)
        assert self.applied == index, "a snapshot's state is as of its entry"
        self._moments = {at: seen for at, seen in self._moments.items() if at > index}

    def _record(self, replicas: Collection[int]) -> None:
        """Note the members for people. The engine's own note comes first: a start without one trusts the file."""
        self.engine.flush()
        self._files.record(self.descriptor, tuple(NodeId(node) for node in sorted(replicas)))

    def _release(self) -> None:
        self._pins.close()
        self._with.cache_memory.leave(self.cache)
        self._log.close()
        self.engine.close()
