"""The leader's own acts: proposals, heartbeats, the check that a quorum is there, handing over.

Source: thesis sections 3.10, 6.2, 6.4; etcd-io/raft.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.raft import confchange, election, replication
from shardforge.raft.confchange import ConfChange, ConfChangeError, decode_conf_change
from shardforge.raft.messages import NO_NODE, Entry, EntryKind, Message
from shardforge.raft.progress import ProgressState
from shardforge.raft.state import Raft, Role

_NORMAL = EntryKind.NORMAL


def tick(raft: Raft) -> None:
    """Every election timeout: is a quorum there? Every heartbeat interval: tell everyone who leads."""
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.config.election_ticks:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            _check_quorum(raft)
        raft.transferee = NO_NODE
        if raft.role is Role.LEADER and raft.lease_given_up and raft.config.election_timeout_us:
            election.lead_anew(raft)
    if raft.role is Role.LEADER and raft.heartbeat_elapsed >= raft.config.heartbeat_ticks:
        raft.heartbeat_elapsed = 0
        replication.broadcast_heartbeat(raft, raft.reads.newest_context())


def _check_quorum(raft: Raft) -> None:
    own = raft.tracker.progress.get(raft.id)
    if own is not None:
        own.recently_active = True
    if not raft.tracker.quorum_active():
        raft.become_follower(raft.term, NO_NODE)
        return
    for node, progress in raft.tracker.progress.items():
        if node != raft.id:
            progress.recently_active = False


def propose(raft: Raft, kind: EntryKind, payloads: Sequence[bytes]) -> int | None:
    """Append proposals of one kind and send them off. The first one's index, or None: refused now."""
    if raft.id not in raft.tracker.progress or raft.transferee != NO_NODE:
        return None
    size = sum([len(data) for data in payloads])
    if (
        raft.uncommitted_bytes
        and size
        and raft.uncommitted_bytes + size > raft.config.uncommitted_bytes_max
    ):
        return None
    term = raft.term
    first = raft.log.last_index + 1
    if kind is _NORMAL:
        entries = [Entry(first + offset, term, data) for offset, data in enumerate(payloads)]
    else:
        entries = [
            _conf_change_entry(raft, first + offset, data) for offset, data in enumerate(payloads)
        ]
    raft.uncommitted_bytes += size
    raft.log.append(entries)
    raft.acknowledge_own(first + len(entries) - 1)
    replication.broadcast_append(raft)
    return first


def _conf_change_entry(raft: Raft, index: int, data: bytes) -> Entry:
    """The membership change, or an empty entry in its place when it may not be made now."""
    if raft.config.validate_conf_changes and not _is_timely(raft, decode_conf_change(data)):
        return Entry(index, raft.term, b"")
    raft.pending_conf_index = index
    return Entry(index, raft.term, data, EntryKind.CONF_CHANGE)


def _is_timely(raft: Raft, change: ConfChange) -> bool:
    if raft.pending_conf_index > raft.log.applied:
        return False
    # Nothing else is under way: the present configuration is the one that the change will meet.
    try:
        confchange.apply(raft.tracker.configuration, change)
    except ConfChangeError:
        return False
    return True


def on_proposal(raft: Raft, message: Message) -> bool:
    """Proposals passed on by a follower; one refused is dropped, and its proposer hears nothing."""
    accepted = True
    for entry in message.entries:
        accepted = propose(raft, entry.kind, [entry.data]) is not None and accepted
    return accepted


def on_read_index(raft: Raft, message: Message) -> None:
    """A linearizable read, from here or from a follower."""
    if raft.committed_in_term:
        replication.begin_read(raft, message)
    else:
        raft.pending_reads.append(message)


def on_transfer_leader(raft: Raft, message: Message) -> None:
    """Hand over to the sender: stop proposing, bring it up to date, let it campaign."""
    target = message.sender
    progress = raft.tracker.progress.get(target)
    if progress is None or progress.is_learner or target in (raft.id, raft.transferee):
        return
    raft.election_elapsed = 0
    raft.transferee = target
    if progress.match == raft.log.last_index:
        replication.send_timeout_now(raft, target)
    else:
        replication.send_append(raft, target)


def report_unreachable(raft: Raft, node: int) -> None:
    """Messages to a member were lost: find out anew where it stands."""
    progress = raft.tracker.progress.get(node)
    if (
        raft.role is Role.LEADER
        and progress is not None
        and progress.state is ProgressState.REPLICATE
    ):
        progress.become_probe()


def report_snapshot(raft: Raft, node: int, *, failed: bool) -> None:
    """A member took a snapshot or failed to: probe it again at the next heartbeat."""
    progress = raft.tracker.progress.get(node)
    if (
        raft.role is not Role.LEADER
        or progress is None
        or progress.state is not ProgressState.SNAPSHOT
    ):
        return
    if failed:
        progress.pending_snapshot = 0
    progress.become_probe()
    progress.flow_paused = True
