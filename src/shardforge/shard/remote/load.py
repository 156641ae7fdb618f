"""What is asked of a shard elsewhere: how much a second, and around which key it halves.

Counted is what goes there as a message: each key that a command writes, each key that is read, each span that is
scanned. A sample of these keys is kept, each with the same chance (Vitter, Random sampling with a reservoir, 1985,
algorithm R), so a key that is asked for often is there often. What is answered out of a cache here costs nobody else.
PURE, but for the random numbers, which come from a seed.
Source: CockroachDB's load-based splitting, for splitting where the requests halve.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from shardforge.ids import ShardId
from shardforge.shard.command import Command, Commit, CommitRecord, Prepare

SAMPLE = 256
SAMPLE_MIN = 64
"""With fewer keys nothing is said of where they lie."""
SMOOTHING = 0.5
"""What the newest stretch of time counts for in the rate."""


class Load:
    """One shard's."""

    def __init__(self, shard: ShardId) -> None:
        self.rate = 0.0
        """Requests a second, as of the last look."""
        self._random = random.Random(shard)
        self._since: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._seen = 0
        self._sample: list[bytes] = []

    def ordered(self, command: Command) -> None:
        """A command goes there."""
        if isinstance(command, Commit | Prepare | CommitRecord):
            for key, _ in command.writes:
                self.asked(key)

    def asked(self, key: bytes) -> None:
        """A key is read or written there."""
        self._seen += 1
        if len(self._sample) < SAMPLE:
            self._sample.append(key)
            return
        place = int(self._random.random() * self._seen)
        if place < SAMPLE:
            self._sample[place] = key

    def look(self, now: float) -> Sequence[bytes]:
        """Learn the rate since the last look, in seconds of a monotonic clock, and begin to count anew.

        Returns the sample of that time, in order; nothing where it is too small.
        """
        sample = sorted(self._sample) if len(self._sample) >= SAMPLE_MIN else []
        if self._since is not None and now > self._since:
            newest = self._seen / (now - self._since)
            self.rate += SMOOTHING * (newest - self.rate)
        self._since = now
        self._clear()
        return sample
