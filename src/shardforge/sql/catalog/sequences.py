"""Sequences and row numbers: values reserved in the meta shard ahead of use, handed out from memory.

A reservation is a small transaction of its own that is never rolled back; after a crash a sequence goes on after
the last reserved value, so no value comes twice (32 ahead, as PostgreSQL logs). Functions are called in the middle of
a synchronous expression and cannot wait: when the cache is empty they raise `MustWaitError` (`functions.waiting`), and
whoever evaluates the row waits and evaluates it again. Values given to the abandoned evaluation are lost, as in a
rollback.

`SequenceState` holds what is one session's: currval and lastval; `SequenceFunctions` are the SQL functions.
Source: PostgreSQL 15, src/backend/commands/sequence.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from shardforge.errors import QueryError, TransactionError
from shardforge.sql.catalog import codec
from shardforge.sql.catalog.descriptors import Sequence
from shardforge.sql.functions.waiting import MustWaitError
from shardforge.txn.coordinator import Coordinator, Isolation, LockStrength, WaitPolicy

CACHE_AHEAD: Final = 32
MOST_AHEAD: Final = 4096


class _Cache:
    """Values reserved and not yet handed out: `next`, `next + increment`, ... `count` of them."""

    __slots__ = ("count", "next")

    def __init__(self, first: int, count: int) -> None:
        self.next = first
        self.count = count


def reach(sequence: Sequence, position: codec.Position | None, wanted: int) -> tuple[int, int]:
    """(first value, how many) of the next reservation of at most `wanted` values, cycling at the bounds.

    Raises: 2200H when the sequence is used up and does not cycle.
    """
    if position is None:
        first = sequence.start
    elif not position.called:
        first = position.last
    else:
        first = position.last + sequence.increment
        if not sequence.minimum <= first <= sequence.maximum:
            if not sequence.cycle:
                raise _used_up(sequence)
            first = sequence.minimum if sequence.increment > 0 else sequence.maximum
    if sequence.increment > 0:
        room = (sequence.maximum - first) // sequence.increment + 1
    else:
        room = (first - sequence.minimum) // -sequence.increment + 1
    return first, min(wanted, room)


def _used_up(sequence: Sequence) -> QueryError:
    which, bound = (
        ("maximum", sequence.maximum) if sequence.increment > 0 else ("minimum", sequence.minimum)
    )
    return QueryError(
        f'nextval: reached {which} value of sequence "{sequence.name}" ({bound})', "2200H"
    )


class SequenceStore:
    """The reserved values of every sequence in this process, and the reservations."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._caches: dict[int, _Cache] = {}
        self._rowids: dict[int, _Cache] = {}

    # ---- sequences -------------------------------------------------------------------------------

    def take(self, sequence: Sequence) -> int | None:
        """The next value, if one is in memory."""
        cache = self._caches.get(sequence.storage_id)
        if cache is None or cache.count == 0:
            return None
        value = cache.next
        cache.next += sequence.increment
        cache.count -= 1
        return value

    async def reserve(self, sequence: Sequence, wanted: int = CACHE_AHEAD) -> None:
        """Reserve values for `take`. Raises: 2200H when there are no more."""
        wanted = max(wanted, sequence.cache)
        first, count = 0, 0

        def advance(position: codec.Position | None) -> codec.Position:
            nonlocal first, count
            first, count = reach(sequence, position, wanted)
            return codec.Position(first + (count - 1) * sequence.increment, called=True)

        await self._update(sequence.storage_id, advance)
        cache = self._caches.get(sequence.storage_id)
        if cache is None or cache.count == 0:  # else another task filled it: these become a gap
            self._caches[sequence.storage_id] = _Cache(first, count)

    async def set(self, sequence: Sequence, value: int, *, called: bool) -> None:
        """setval(): the next value is `value`, or the one after it when `called`. Not rolled back."""
        await self._update(sequence.storage_id, lambda _: codec.Position(value, called))
        self._caches.pop(sequence.storage_id, None)

    async def position(self, sequence: Sequence) -> codec.Position:
        """What `SELECT last_value, is_called` shows: values only reserved count as not yet given."""
        data = await self._coordinator.read_latest(codec.sequence_key(sequence.storage_id))
        if data is None:
            return codec.Position(sequence.start, called=False)
        stored = codec.decode_position(data)
        cache = self._caches.get(sequence.storage_id)
        if cache is None or cache.count == 0 or not stored.called:
            return stored
        return self._in_memory(sequence, cache)

    @staticmethod
    def _in_memory(sequence: Sequence, cache: _Cache) -> codec.Position:
        if cache.next == sequence.start:
            return codec.Position(sequence.start, called=False)
        return codec.Position(cache.next - sequence.increment, called=True)

    def last_value(self, sequence: Sequence) -> int | None:
        """The last value handed out, when memory knows it."""
        cache = self._caches.get(sequence.storage_id)
        return None if cache is None else cache.next - sequence.increment

    def forget(self, storage_id: int) -> None:
        """Drop reserved values: the definition changed or the sequence is gone."""
        self._caches.pop(storage_id, None)

    # ---- row numbers of tables without a primary key ---------------------------------------------

    def take_rowid(self, storage_id: int) -> int | None:
        """The next row number of a table without primary key, if one is in memory."""
        cache = self._rowids.get(storage_id)
        if cache is None or cache.count == 0:
            return None
        cache.count -= 1
        cache.next += 1
        return cache.next - 1

    async def reserve_rowids(self, storage_id: int, wanted: int = MOST_AHEAD) -> None:
        """Reserve row numbers for `take_rowid`."""
        first = 0

        def advance(position: codec.Position | None) -> codec.Position:
            nonlocal first
            first = 1 if position is None else position.last + 1
            return codec.Position(first + wanted - 1, called=True)

        await self._update(storage_id, advance)
        cache = self._rowids.get(storage_id)
        if cache is None or cache.count == 0:
            self._rowids[storage_id] = _Cache(first, wanted)

    async def rowid(self, storage_id: int) -> int:
        """A row number that no row of the table had before."""
        while (number := self.take_rowid(storage_id)) is None:
            await self.reserve_rowids(storage_id)
        return number

    async def continue_rowids(self, storage_id: int, before: int) -> None:
        """Let the row numbers of a storage, which has none yet, go on from where those of another are."""
        data = await self._coordinator.read_latest(codec.sequence_key(before))
        if data is not None:
            position = codec.decode_position(data)
            await self._update(storage_id, lambda _: position)

    # ---- stored positions ------------------------------------------------------------------------

    async def _update(
        self, storage_id: int, advance: Callable[[codec.Position | None], codec.Position]
    ) -> None:
        key = codec.sequence_key(storage_id)
        transaction = self._coordinator.begin(Isolation.READ_COMMITTED)
        try:
            [held] = await transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
            position = None if held.value is None else codec.decode_position(held.value)
            transaction.put(key, codec.encode(advance(position)))
        except BaseException:
            await transaction.rollback()
            raise
        await transaction.commit()


class TransactionModes(Protocol):
    """Whether the transaction under way may write."""

    @property
    def reads_only(self) -> bool: ...


class SequenceState:
    """What one session remembers of sequences: the values that it was given, for currval and lastval."""

    __slots__ = ("current", "done", "last", "modes", "wanted")

    def __init__(self, modes: TransactionModes) -> None:
        self.modes = modes
        self.current: dict[int, int] = {}
        self.last: int | None = None
        self.wanted = CACHE_AHEAD
        """The next reservation's size; grows within a statement that uses many values."""
        self.done: set[tuple[int, int, bool]] = set()
        """setval calls that this statement has already carried out."""

    def statement_started(self) -> None:
        """Before each statement: begin with a small reservation again."""
        self.wanted = CACHE_AHEAD
        self.done.clear()

    def forget(self) -> None:
        """DISCARD SEQUENCES: forget currval and lastval."""
        self.current.clear()
        self.last = None


def _read_only(what: str) -> TransactionError:
    return TransactionError(f"cannot execute {what} in a read-only transaction", "25006")


class SequenceFunctions:
    """nextval, currval, lastval and setval over a catalog and one session's state."""

    __slots__ = ("_find", "_state", "_store")

    def __init__(
        self, store: SequenceStore, state: SequenceState, find: Callable[[int], Sequence | None]
    ) -> None:
        self._store = store
        self._state = state
        self._find = find

    def _sequence(self, oid: int) -> Sequence:
        sequence = self._find(oid)
        if sequence is None:
            raise QueryError(f"could not open relation with OID {oid}", "42P01")
        return sequence

    def nextval(self, oid: int) -> int:
        """The next value. Raises: MustWaitError; 2200H when used up."""
        sequence = self._sequence(oid)
        state = self._state
        if state.modes.reads_only:
            raise _read_only("nextval()")
        value = self._store.take(sequence)
        if value is None:
            wanted = state.wanted
            state.wanted = min(wanted * 2, MOST_AHEAD)
            raise MustWaitError(lambda: self._store.reserve(sequence, wanted))
        state.current[sequence.id] = value
        state.last = sequence.id
        return value

    async def prepare(self, oid: int, count: int) -> None:
        """Have `count` values in memory, for a statement that knows how many it needs."""
        await self._store.reserve(self._sequence(oid), count)

    def currval(self, oid: int) -> int:
        """The session's last value of this sequence. Raises: 55000 before the first nextval."""
        sequence = self._sequence(oid)
        value = self._state.current.get(sequence.id)
        if value is None:
            raise QueryError(
                f'currval of sequence "{sequence.name}" is not yet defined in this session', "55000"
            )
        return value

    def lastval(self) -> int:
        """The value of the session's last nextval. Raises: 55000 before the first."""
        last = self._state.last
        if last is None or self._find(last) is None:
            raise QueryError("lastval is not yet defined in this session", "55000")
        return self._state.current[last]

    def setval(self, oid: int, value: int, called: bool = True) -> int:
        """Set the position; takes effect at once and is not rolled back. Raises: MustWaitError; 22003."""
        sequence = self._sequence(oid)
        if not sequence.minimum <= value <= sequence.maximum:
            raise QueryError(
                f'setval: value {value} is out of bounds for sequence "{sequence.name}"'
                f" ({sequence.minimum}..{sequence.maximum})",
                "22003",
            )
        request = (sequence.id, value, called)
        state = self._state
        if state.modes.reads_only:
            raise _read_only("setval()")
        if request not in state.done:

            async def store() -> None:
                await self._store.set(sequence, value, called=called)
                state.done.add(request)

            raise MustWaitError(store)
        if called:
            state.current[sequence.id] = value
            state.last = sequence.id
        return value
