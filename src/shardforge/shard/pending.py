"""What a shard's leader knows of commits under way: marks, and its mirror of the prepared intents.

A `Mark` stands for all keys that one transaction is committing in this shard. It goes through:

    marked      no timestamp yet, or one that is known but not durable
    prepared    its intents are in the engine, values mirrored here; the outcome is open
    committed   the commit record is durable: the values here are the newest versions
    gone        applied or aborted: the engine tells the whole truth again

A mark found in the engine after a restart begins as prepared, with nobody known to finish it (`orphan`).

Invariant: a key has one open mark at most (row locks exclude writers; rule R1), so a reader that finds none may
trust the engine alone, and pays one dictionary look-up to know it (rule R2).
PURE: whoever waits gives a callback.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence

from shardforge.ids import Timestamp, TxnId

_NOTHING_BELOW: dict[bytes, Mark] = {}


class Mark:
    """The keys that one transaction is committing in one shard."""

    __slots__ = (
        "_sorted",
        "_waiters",
        "anchor",
        "below",
        "committed",
        "floor",
        "keys",
        "orphan",
        "stranded",
        "timestamp",
        "txn",
        "values",
    )

    def __init__(self, txn: TxnId, floor: Timestamp, keys: Sequence[bytes]) -> None:
        self.txn = txn
        self.floor = floor
        self.keys = keys
        self.timestamp = Timestamp(0)
        """The commit timestamp, 0 while unknown."""
        self.values: Mapping[bytes, bytes | None] | None = None
        """The prepared writes."""
        self.anchor = b""
        self.below: dict[bytes, Mark] = _NOTHING_BELOW
        """Older, committed marks on the same keys."""
        self.committed = False
        self.orphan = False
        self.stranded = False
        """Nobody can settle it before a restart."""
        self._sorted: list[bytes] | None = None
        self._waiters: list[Callable[[], None]] = []

    def hides_from(self, timestamp: Timestamp) -> bool:
        """Whether a reader at `timestamp` needs the outcome (rule R2)."""
        if self.timestamp:
            return self.timestamp <= timestamp
        return self.floor < timestamp

    def touches(self, start: bytes, end: bytes) -> bool:
        """Whether one of the keys is in [start, end)."""
        keys = self.sorted_keys()
        at = bisect_left(keys, start)
        return at < len(keys) and keys[at] < end

    def keys_in(self, start: bytes, end: bytes) -> list[bytes]:
        """The keys in [start, end), in order."""
        keys = self.sorted_keys()
        return keys[bisect_left(keys, start) : bisect_left(keys, end)]

    def sorted_keys(self) -> list[bytes]:
        """The keys in order; sorted when first asked for."""
        if self._sorted is None:
            self._sorted = sorted(self.keys)
        return self._sorted

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once, when the mark becomes committed or goes."""
        self._waiters.append(callback)

    def strand(self) -> None:
        """The outcome cannot be known here any more: send away whoever waits, and will wait."""
        self.stranded = True
        self.settle()

    def settle(self) -> None:
        """Call whoever waits."""
        waiters = self._waiters
        if waiters:
            self._waiters = []
            for callback in waiters:
                callback()


class Pending:
    """The marks of one shard's leader, by key."""

    __slots__ = ("by_key", "marks")

    def __init__(self) -> None:
        self.by_key: dict[bytes, Mark] = {}
        """The newest mark of each key; older, committed ones hang below it."""
        self.marks: dict[TxnId, Mark] = {}

    def add(self, mark: Mark) -> bool:
        """Set the mark on all of its keys, or on none of them if one's outcome is still open.

        A committed mark does not stand in the way: its resolution is before anything proposed from now on
        in the shard's log, and it stays below the new one for readers of that time.
        """
        self.open(mark)
        if self.extend(mark, mark.keys):
            return True
        del self.marks[mark.txn]
        return False

    def open(self, mark: Mark) -> None:
        """Begin to set a mark of many keys, which `extend` does part by part: scans heed all of them from now on."""
        assert mark.txn not in self.marks, "one mark a transaction and shard"
        self.marks[mark.txn] = mark

    def extend(self, mark: Mark, keys: Collection[bytes]) -> bool:
        """Set the mark on these keys of its own, or on none of them: false where `add` would be.

        False too when the leadership was lost since `open`. What was set of it is for `remove`.
        """
        if self.marks.get(mark.txn) is not mark:
            return False
        by_key = self.by_key
        if by_key and not by_key.keys().isdisjoint(keys):
            below = {key: by_key[key] for key in keys if key in by_key}
            if not all(other.committed for other in below.values()):
                return False
            if mark.below:
                mark.below.update(below)
            else:
                mark.below = below
        for key in keys:
            by_key[key] = mark
        return True

    def remove(self, mark: Mark) -> None:
        """Take the mark off: the engine holds its outcome, and that of those below it."""
        if self.marks.get(mark.txn) is not mark:
            return
        self.release(mark, mark.keys)
        self.close(mark)

    def close(self, mark: Mark) -> None:
        """The end of a mark that is off all of its keys."""
        if self.marks.get(mark.txn) is mark:
            del self.marks[mark.txn]
            mark.settle()

    def release(self, mark: Mark, keys: Collection[bytes]) -> None:
        """Take the mark off these keys, whose outcome the engine holds; when it is off all of them, `close` it.

        Scans may heed it there a while longer: it says the same, as whatever came later is after all of its
        resolution in the shard's log.
        """
        if self.marks.get(mark.txn) is not mark:
            return
        by_key, below = self.by_key, mark.below
        for key in keys:
            above = by_key.get(key)
            if above is mark:
                if key in below:
                    by_key[key] = below[key]
                else:
                    del by_key[key]
                continue
            while above is not None:
                under = above.below.get(key)
                if under is mark:
                    if key in below:
                        above.below[key] = below[key]
                    else:
                        del above.below[key]
                above = under if under is not mark else None

    def clear(self) -> None:
        """Forget everything: leadership was lost. Whoever waits asks again."""
        marks = list(self.marks.values())
        self.marks.clear()
        self.by_key.clear()
        for mark in marks:
            mark.settle()

    def visible(self, key: bytes, timestamp: Timestamp) -> Mark | None:
        """The newest mark that a reader of `key` at `timestamp` must heed (rule R2)."""
        mark = self.by_key.get(key)
        while mark is not None and not mark.hides_from(timestamp):
            mark = mark.below.get(key)
        return mark

    def visible_in(self, start: bytes, end: bytes, timestamp: Timestamp) -> list[Mark]:
        """The marks that a reader of [start, end) at `timestamp` must heed, oldest first."""
        found = [
            mark
            for mark in self.marks.values()
            if mark.hides_from(timestamp) and mark.touches(start, end)
        ]
        found.sort(key=lambda mark: mark.timestamp)
        return found
