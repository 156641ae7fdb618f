"""Putting a committed membership change in force.

A change takes effect when it is applied, on each node for itself; one is under way at a time.
Source: thesis chapter 4; etcd-io/raft.
"""

from __future__ import annotations

from shardforge.raft import confchange, leader, replication
from shardforge.raft.confchange import Configuration
from shardforge.raft.messages import NO_NODE, ConfState, Entry, EntryKind
from shardforge.raft.state import Raft, Role


def apply_conf_change(raft: Raft, entry: Entry) -> ConfState:
    """The membership after a change is applied. Raises ConfChangeError when it does not fit the present one.

    A snapshot may have put a later membership in force while the entry was on its way to the state machine.
    """
    if entry.index > raft.conf_index:
        change = confchange.decode_conf_change(entry.data)
        configuration = confchange.apply(raft.tracker.configuration, change)
        raft.conf_index = entry.index
        _switch_to(raft, configuration)
    return raft.tracker.configuration.conf_state()


def _switch_to(raft: Raft, configuration: Configuration) -> None:
    raft.tracker.switch_to(configuration, raft.log.last_index)
    if raft.role is not Role.LEADER:
        return
    own = raft.tracker.progress.get(raft.id)
    if own is None or own.is_learner:
        if raft.config.step_down_on_removal:
            raft.become_follower(raft.term, NO_NODE)
        return
    if replication.advance_commit(raft):
        replication.release_pending_reads(raft)
        replication.broadcast_append(raft)
    else:
        replication.broadcast_append(raft, even_empty=False)
    if raft.transferee not in configuration.voters:
        raft.transferee = NO_NODE


def applied_to(raft: Raft, index: int, size: int) -> None:
    """The state machine has applied everything up to `index`; a joint configuration may now be left."""
    log = raft.log
    log.applied_to(max(log.applied, index), size)
    configuration = raft.tracker.configuration
    if (
        configuration.auto_leave
        and raft.role is Role.LEADER
        and raft.log.applied >= raft.pending_conf_index
    ):
        # Refused while a transfer is under way: then the new leader does it, or this one at a later apply.
        leader.propose(raft, EntryKind.CONF_CHANGE, [b""])
