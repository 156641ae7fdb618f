"""What the leader knows of each member's log, and who may be sent more.

    PROBE      one append at a time, to find where the logs agree
    REPLICATE  appends are pipelined, as far as the in-flight limits allow
    SNAPSHOT   nothing is sent until the member has taken a snapshot

Invariant: match < next. Entries in [match + 1, next) are on their way. Source: etcd-io/raft tracker.
"""

from __future__ import annotations

import enum
from collections import deque


class ProgressState(enum.Enum):
    """How a member is fed."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """Appends sent and not yet acknowledged: the last index and the bytes of each, oldest first."""

    __slots__ = ("_bytes", "_bytes_max", "_messages_max", "_sent")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._sent: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        """Whether another append must wait."""
        return len(self._sent) >= self._messages_max or self._bytes >= self._bytes_max

    def add(self, index: int, size: int) -> None:
        """Note an append whose last entry is at `index`."""
        assert not self.full, "an append was sent beyond the in-flight limits"
        self._sent.append((index, size))
        self._bytes += size

    def free_to(self, index: int) -> None:
        """Forget the appends that an acknowledgement of `index` covers."""
        while self._sent and self._sent[0][0] <= index:
            self._bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        """Forget all of them."""
        self._sent.clear()
        self._bytes = 0


class Progress:
    """One member as the leader sees it."""

    __slots__ = (
        "flow_paused",
        "inflights",
        "is_learner",
        "lease_from",
        "match",
        "next",
        "pending_snapshot",
        "recently_active",
        "sent_commit",
        "state",
    )

    def __init__(
        self, match: int, next_index: int, inflights: Inflights, *, is_learner: bool
    ) -> None:
        self.match = match
        self.next = next_index
        self.state = ProgressState.PROBE
        self.pending_snapshot = 0
        self.sent_commit = 0
        """The highest commit index in messages on their way; the member may not have it."""
        self.recently_active = False
        self.flow_paused = False
        self.is_learner = is_learner
        self.inflights = inflights
        self.lease_from = 0
        """The leader's clock when it sent what the member last answered."""

    @property
    def paused(self) -> bool:
        """Whether appends must wait for an answer."""
        return self.flow_paused or self.state is ProgressState.SNAPSHOT

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.flow_paused = False
        self.pending_snapshot = 0
        self.inflights.clear()

    def become_probe(self) -> None:
        """Find again where the logs agree; after a snapshot, from its end."""
        after_snapshot = self.pending_snapshot + 1 if self.state is ProgressState.SNAPSHOT else 0
        self._enter(ProgressState.PROBE)
        self.next = max(self.match + 1, after_snapshot)
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """The logs agree up to `match`: send without waiting."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot at `index` is on its way."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, size: int) -> None:
        """Note an append message with `count` entries."""
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            self.flow_paused = self.inflights.full
        elif count:
            self.flow_paused = True

    def can_learn_commit(self, commit: int) -> bool:
        """Whether an empty append would tell the member of entries committed that it has been sent."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def acknowledge(self, index: int) -> bool:
        """The member has everything up to `index`. False: known already."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.flow_paused = False
        return True

    def reject(self, rejected: int, hint: int) -> bool:
        """The member refused an append after `rejected`; its log may agree at `hint`. False: an old answer."""
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != rejected:
                return False
            self.next = max(min(rejected, hint + 1), self.match + 1)
            self.flow_paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True
