"""What transactions will write, in the memory of the node that runs them, all of which have a limit together.

What a large transaction has written leaves it before the commit (`streamed`); a place for each key stays.
PURE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sortedcontainers import SortedList

from shardforge.errors import QueryError

WRITE_BYTES: Final = 850
"""About what a write takes besides its key and value: its place, its lock, its part of the commit (measured: 900)."""
STREAMED_BYTES: Final = 300
"""About what one takes besides its key once it is an intent: its place, its lock, its part of the commit (measured)."""
STREAM_SIZE: Final = 32 << 20
"""See `sql.transaction_stream_size`, whose default it is."""
FREE_BYTES: Final = 1 << 16
"""A transaction takes so much without asking."""
GRANT_BYTES: Final = 1 << 20
"""So much it takes at a time, beyond what it needs."""


class WriteMemory:
    """The memory of all transactions of a node."""

    __slots__ = ("limit", "stream_size", "used")

    def __init__(self, limit: int, stream_size: int = STREAM_SIZE) -> None:
        """`limit`: bytes for all; `stream_size`: with more than that a transaction is large."""
        self.limit = limit
        self.stream_size = stream_size
        self.used = 0

    def take(self, size: int) -> None:
        """Have so many bytes more. Raises QueryError 53200 when there are not as many."""
        if self.used + size > self.limit:
            raise QueryError(
                "out of memory",
                "53200",
                detail=f"Uncommitted writes hold the {self.limit} bytes of sql.transaction_memory.",
                hint="Commit in smaller parts, or raise sql.transaction_memory.",
            )
        self.used += size

    def give(self, size: int) -> None:
        """Have so many bytes less."""
        self.used -= size


class WriteBuffer:
    """The writes of a transaction, with an undo log for savepoints."""

    __slots__ = ("_granted", "_kept", "_memory", "_ordered", "_size", "_undo", "values")

    def __init__(self, memory: WriteMemory) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._memory = memory
        self._size = 0
        self._kept = 0
        self._granted = FREE_BYTES
        self._undo: list[tuple[bytes, bool, bytes | None]] | None = None
        self._ordered: SortedList | None = None

    def set(self, key: bytes, value: bytes | None) -> None:
        """Buffer a write; None deletes. Raises QueryError 53200."""
        values = self.values
        size = 0 if value is None else len(value)
        if self._undo is not None or key not in values:
            size += WRITE_BYTES + len(key)
        else:
            before = values[key]
            size -= 0 if before is None else len(before)
        size += self._size
        if size > self._granted:
            missing = size - self._granted
            self._memory.take(missing + GRANT_BYTES)
            self._granted += missing + GRANT_BYTES
        self._size = size
        if self._undo is not None:
            self._undo.append((key, key in values, values.get(key)))
        if self._ordered is not None and key not in values:
            self._ordered.add(key)
        values[key] = value

    @property
    def large(self) -> bool:
        """Whether the writes here are so many that they should become intents, and no savepoint may want them back."""
        return self._size - self._kept > self._memory.stream_size and self._undo is None

    def became_intents(self, keys: Collection[bytes], new: Collection[bytes]) -> None:
        """The writes of these keys are kept here no more; of the `new` ones none was an intent before."""
        for key in keys:
            del self.values[key]
        self._ordered = None
        self._kept += len(new) * STREAMED_BYTES + sum(map(len, new))
        self._size = self._kept + sum(
            WRITE_BYTES + len(key) + len(value or b"") for key, value in self.values.items()
        )
        spare = self._granted - max(FREE_BYTES, self._size)
        if spare > 0:
            self._memory.give(spare)
            self._granted -= spare

    def position(self) -> int:
        """A point to come back to; the undo log is kept from the first one on."""
        if self._undo is None:
            self._undo = []
        return len(self._undo)

    def undo_to(self, position: int) -> None:
        """Take back every write made after `position`."""
        undo = self._undo or []
        while len(undo) > position:
            key, existed, value = undo.pop()
            if existed:
                self.values[key] = value
            else:
                del self.values[key]
                if self._ordered is not None:
                    self._ordered.remove(key)

    def forget_undo(self) -> None:
        """No point to come back to is left."""
        self._undo = None

    def in_span(self, start: bytes, end: bytes) -> Mapping[bytes, bytes | None]:
        """The writes on keys of [start, end)."""
        if not self.values:
            return {}
        if self._ordered is None:
            self._ordered = SortedList(self.values)
        values = self.values
        return {key: values[key] for key in self._ordered.irange(start, end, (True, False))}

    def forget(self) -> None:
        """The transaction has ended: its memory is others'."""
        self._memory.give(self._granted - FREE_BYTES)
        self._granted = FREE_BYTES
