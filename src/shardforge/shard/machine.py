"""The replicated state machine of one copy of a shard: its engine, and what is remembered of it.

Committed entries are applied in order, each as one engine batch with the applied index in it. Between two entries the
state can be pinned: for a node that pulls it piece by piece (`snapshot`), or for whoever compares replicas.
Invariant: entries are applied each once, and nothing but an entry, or a whole snapshot, changes the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

from shardforge.ids import NodeId, ShardId, TxnId
from shardforge.shard.command import Application, Command, Outcome, decode_intent
from shardforge.shard.descriptor import ShardDescriptor
from shardforge.shard.files import ShardFiles
from shardforge.shard.log import ShardLog
from shardforge.shard.pending import Mark, Pending
from shardforge.shard.snapshot import Pins
from shardforge.shard.split import described
from shardforge.shard.surroundings import Surroundings
from shardforge.storage import mvcc
from shardforge.storage.engine import Engine
from shardforge.storage.newest_cache import NewestCache

INTENTS_A_TURN = 5_000

Opened: TypeAlias = tuple[Engine, ShardLog]
"""What `ShardFiles.open` gives, opened by somebody else."""


class StateMachine:
    """What one replica of a shard holds. It opens its files."""

    def __init__(
        self, descriptor: ShardDescriptor, files: ShardFiles, surroundings: Surroundings,
        opened: Opened | None = None,
    ) -> None:  # fmt: skip
        self.pending = Pending()
        self.cache = NewestCache(surroundings.cache_memory)
        self.applied = 0
        self.cleared = 0
        """Entries applied that emptied spans."""
        self._files = files
        self._with = surroundings
        self._clock = surroundings.clock
        self._blocking = surroundings.blocking
        self._installing = False
        self._pins = Pins(surroundings.blocking)
        self._moments: dict[int, Callable[[], None]] = {}
        self.engine, self._log = opened or files.open()
        self.descriptor = described(self.engine, descriptor)

    @property
    def id(self) -> ShardId:
        """The shard's id."""
        return self.descriptor.id

    @property
    def size_bytes(self) -> int:
        """About how much the engine holds; 0 while it is being replaced."""
        return 0 if self._installing else self.engine.approximate_size()

    # ---- applying --------------------------------------------------------------------------------

    def _application(self, term: int) -> Application:
        span = self.descriptor.span
        within = None if self.descriptor.epoch == 1 else (span.start, span.end)
        return Application(self.engine, term, self._prepared_values, within)

    def _prepared_values(self, txn: TxnId) -> Mapping[bytes, bytes | None] | None:
        mark = self.pending.marks.get(txn)
        return None if mark is None else mark.values

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
        self.applied = index
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

    async def _recover_marks(self) -> None:
        """Remember the transactions whose intents the engine holds: a new leader knows nothing else of them."""
        self.pending.clear()
        by_txn: dict[int, Mark] = {}
        span = self.descriptor.span
        intents = mvcc.intents(self.engine, span.start, span.end)
        for seen, (key, data) in enumerate(intents, start=1):
            intent = decode_intent(data)
            mark = by_txn.get(intent.txn)
            if mark is None:
                mark = by_txn[intent.txn] = Mark(intent.txn, intent.floor, [])
                mark.timestamp, mark.anchor = intent.timestamp, intent.anchor
                mark.orphan, mark.values = True, {}
            assert isinstance(mark.keys, list)
            assert isinstance(mark.values, dict)
            mark.keys.append(key)
            mark.values[key] = intent.value
            if seen % INTENTS_A_TURN == 0:
                # The engine does not change meanwhile: only the task that runs this writes it.
                await asyncio.sleep(0)
        for mark in by_txn.values():
            added = self.pending.add(mark)
            assert added, "a key has one intent"

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
        self.cache.clear()
        self.applied = index
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
