"""How one voter behaves, checked once at start."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shardforge.raft.log_storage import LogStorage
from shardforge.raft.messages import APPLY_THREAD, NO_NODE

NO_LIMIT = 2**63 - 1


@dataclass(slots=True, frozen=True)
class Config:
    """`node_id` is 1 or more; ticks are the unit of the timeouts; sizes are bytes of entry data."""

    node_id: int
    storage: LogStorage
    random: random.Random
    applied: int = 0
    """The state machine's applied index at start; nothing at or below it is handed out again."""
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    election_timeout_us: int = 0
    """How long, on its own clock, a follower that has heard the leader helps nobody else to lead. With it the
    leader has a lease, and answers reads alone while it lasts. 0: reads always ask a quorum."""
    now_us: int = 0
    """The host's clock at start: a restarted voter does not know whom it heard before."""
    clock_drift: float = 0.05
    """The lease ends before the election timeout by this share of it."""
    async_storage_writes: bool = True
    message_bytes_max: int = 1 << 20
    applying_bytes_max: int = 64 << 20
    uncommitted_bytes_max: int = NO_LIMIT
    inflight_messages_max: int = 256
    inflight_bytes_max: int = NO_LIMIT
    forward_proposals: bool = False
    """A follower passes proposals on to the leader. Off: an entry is never proposed twice unknowingly."""
    validate_conf_changes: bool = True
    step_down_on_removal: bool = True

    def __post_init__(self) -> None:
        if not NO_NODE < self.node_id < APPLY_THREAD:
            raise ValueError(f"node id {self.node_id} is reserved")
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError("heartbeat ticks must be positive and fewer than election ticks")
        if self.inflight_messages_max <= 0:
            raise ValueError("at least one append message must be allowed in flight")
        if self.inflight_bytes_max < self.message_bytes_max and self.inflight_bytes_max != NO_LIMIT:
            raise ValueError("in-flight bytes must hold one message")
        if self.election_timeout_us and not self.check_quorum:
            raise ValueError("a lease needs check_quorum")
        if not 0 <= self.clock_drift < 1:
            raise ValueError("clock drift is a share of the election timeout")

    @property
    def lease_us(self) -> int:
        """How long after its sending a round that a quorum answered lets the leader read alone."""
        return int(self.election_timeout_us * (1 - self.clock_drift))
