"""One voter and small groups through the host's interface: rounds, leases, reads, limits, restarts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from shardforge.raft.confchange import Change, ChangeKind, ConfChange, Transition
from shardforge.raft.config import Config
from shardforge.raft.memory_log import MemoryLogStorage
from shardforge.raft.messages import (
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Message,
    MessageKind,
    Snapshot,
)
from shardforge.raft.rawnode import RawNode
from shardforge.raft.state import Role

TIMEOUT_US = 10_000
START_US = 1_000_000


class Group:
    """Nodes whose storage is instant and whose messages arrive at once, unless the recipient is cut off."""

    def __init__(self, voters: Iterable[int], **options: Any) -> None:
        self.storages = {
            node: MemoryLogStorage(ConfState(tuple(voters)), index=5, term=1) for node in voters
        }
        self.options = options
        self.nodes = {node: self.start(node) for node in self.storages}
        self.cut_off: set[int] = set()
        self.applied: dict[int, list[bytes]] = {node: [] for node in self.storages}
        self.reads: list[tuple[int, bytes]] = []

    def start(self, node: int, **options: Any) -> RawNode:
        storage = self.storages[node]
        config = Config(node, storage, random.Random(node), applied=5, **(self.options | options))
        return RawNode(config)

    def settle(self) -> None:
        while any(raw.has_ready() for raw in self.nodes.values()):
            for node, raw in self.nodes.items():
                self.work(node, raw)

    def work(self, node: int, raw: RawNode) -> None:
        ready = raw.ready()
        outgoing = list(ready.messages)
        self.reads += [(state.index, state.context) for state in ready.read_states]
        if ready.storage_append is not None:
            self.storages[node].write(ready.storage_append)
            outgoing += raw.stored(ready.storage_append)
        if ready.storage_apply is not None:
            for entry in ready.storage_apply.entries:
                if entry.kind is EntryKind.CONF_CHANGE:
                    raw.apply_conf_change(entry)
                else:
                    self.applied[node].append(entry.data)
            raw.applied(ready.storage_apply)
        for message in outgoing:
            if not {node, message.to} & self.cut_off:
                self.nodes[message.to].step(message)

    def elect(self, node: int) -> RawNode:
        assert self.nodes[node].campaign()
        self.settle()
        assert self.nodes[node].is_leader
        return self.nodes[node]

    def at(self, now_us: int) -> None:
        for raw in self.nodes.values():
            raw.at(now_us)


def with_lease(voters: Iterable[int] = (1, 2, 3)) -> Group:
    group = Group(voters, election_timeout_us=TIMEOUT_US, clock_drift=0.1, now_us=START_US)
    group.at(START_US + TIMEOUT_US)
    return group


def test_one_voter_commits_what_it_has_written_and_applies_it_in_order() -> None:
    group = Group((1,))
    node = group.elect(1)
    first = node.propose_many([b"a", b"b"])
    assert first == node.commit_index + 1
    ready = node.ready()
    assert ready.must_sync
    assert ready.storage_append is not None
    assert [entry.data for entry in ready.storage_append.entries] == [b"a", b"b"]
    assert node.commit_index == first - 1, "committed before it was durable"
    group.storages[1].write(ready.storage_append)
    assert node.stored(ready.storage_append) == []
    assert node.commit_index == first + 1
    group.settle()
    assert group.applied[1][-2:] == [b"a", b"b"]
    assert node.applied_index == first + 1
    assert not node.has_ready()


def test_appends_are_pipelined_while_earlier_ones_are_being_written() -> None:
    group = Group((1,))
    node = group.elect(1)
    node.propose(b"a")
    first = node.ready().storage_append
    node.propose(b"b")
    second = node.ready().storage_append
    assert first is not None
    assert second is not None
    assert [entry.data for entry in second.entries] == [b"b"]
    for message in (first, second):
        group.storages[1].write(message)
        node.stored(message)
    group.settle()
    assert group.applied[1][-2:] == [b"a", b"b"]


def test_a_ready_does_not_change_after_it_was_taken() -> None:
    group = Group((1, 2, 3))
    leader = group.elect(1)
    leader.propose(b"a")
    readies = []
    for node in (leader, leader, group.nodes[2]):
        ready = node.ready()
        readies.append((ready, repr(ready)))
    leader.propose(b"b")
    leader.tick()
    assert [repr(ready) for ready, _ in readies] == [before for _, before in readies]


def test_synchronous_writes_end_with_advance() -> None:
    storage = MemoryLogStorage(ConfState((1,)), index=5, term=1)
    node = RawNode(Config(1, storage, random.Random(1), applied=5, async_storage_writes=False))
    node.campaign()
    node_applied = []
    while node.has_ready():
        ready = node.ready()
        storage.append(ready.entries)
        if ready.hard_state is not None:
            storage.hard_state = ready.hard_state
        node_applied += ready.committed_entries
        node.advance(ready)
    assert [(entry.index, entry.term) for entry in node_applied] == [(6, 2)]
    assert storage.hard_state == HardState(2, 1, 6)


def test_a_restart_applies_again_what_the_state_machine_lost() -> None:
    group = Group((1,))
    node = group.elect(1)
    node.propose(b"a")
    group.settle()
    assert node.term == group.storages[1].hard_state.term
    again = group.nodes[1] = group.start(1)
    group.applied[1].clear()
    group.settle()
    assert group.applied[1] == [b"", b"a"]
    assert again.term == node.term


def test_a_state_machine_ahead_of_the_durable_commit_index_is_believed() -> None:
    storage = MemoryLogStorage(ConfState((1,)), index=5, term=1)
    storage.append([Entry(6, 1, b"a"), Entry(7, 1, b"b")])
    node = RawNode(Config(1, storage, random.Random(1), applied=7))
    assert node.commit_index == 7
    assert not node.has_ready()


def test_only_a_leader_takes_proposals_unless_they_may_be_forwarded() -> None:
    group = Group((1, 2, 3))
    assert group.nodes[1].propose(b"a") is None
    group.elect(1)
    assert group.nodes[2].propose(b"a") is None
    forwarding = Group((1, 2, 3), forward_proposals=True)
    forwarding.elect(1)
    assert forwarding.nodes[2].propose(b"a") == 0
    forwarding.settle()
    assert forwarding.applied[3] == [b"", b"a"]


def test_a_follower_in_touch_with_its_leader_ignores_a_disturber() -> None:
    group = Group((1, 2, 3))
    leader = group.elect(1)
    term = leader.term
    group.nodes[3].campaign()
    group.settle()
    assert leader.is_leader
    assert {raw.term for raw in group.nodes.values()} == {term}


def test_a_learner_without_its_leader_follows_nobody_and_does_not_stand() -> None:
    storage = MemoryLogStorage(ConfState((1, 2), learners=(3,)), index=5, term=1)
    raw = RawNode(Config(3, storage, random.Random(3), applied=5))
    heartbeat = Message(MessageKind.HEARTBEAT, 3, 1, 1)
    raw.step(heartbeat)
    followed = raw.ready().soft_state
    assert followed is not None
    assert followed.lead == raw.lead == 1
    for _ in range(200):
        raw.tick()
    assert raw.lead == 0
    assert raw.raft.role is Role.FOLLOWER
    assert raw.has_ready(), "the host is told"
    ready = raw.ready()
    assert ready.soft_state is not None
    assert not [m for m in ready.messages if m.kind in (MessageKind.VOTE, MessageKind.PRE_VOTE)]
    assert raw.term == 1
    raw.step(heartbeat)
    assert raw.lead == 1


def test_a_leader_without_a_quorum_steps_down() -> None:
    group = Group((1, 2, 3))
    leader = group.elect(1)
    group.cut_off = {1}
    for _ in range(25):
        leader.tick()
        group.settle()
    assert not leader.is_leader


def test_uncommitted_proposals_are_limited() -> None:
    group = Group((1, 2, 3), uncommitted_bytes_max=10)
    leader = group.elect(1)
    group.cut_off = {1}
    assert leader.propose(b"x" * 8) is not None
    assert leader.propose(b"x" * 8) is None
    group.cut_off = set()
    leader.tick()
    group.settle()
    assert leader.propose(b"x" * 8) is not None


def test_a_read_waits_for_a_quorum() -> None:
    group = Group((1, 2, 3))
    leader = group.elect(1)
    group.cut_off = {1}
    leader.read_index(b"one")
    group.settle()
    assert group.reads == []
    group.cut_off = set()
    leader.tick()
    group.settle()
    assert group.reads == [(leader.commit_index, b"one")]
    group.nodes[2].read_index(b"two")
    group.settle()
    assert group.reads[1:] == [(leader.commit_index, b"two")]


def test_one_voter_answers_reads_only_after_an_entry_of_its_term() -> None:
    group = Group((1,))
    node = group.nodes[1]
    node.campaign()
    while not node.is_leader:
        ready = node.ready()
        assert ready.storage_append is not None
        group.storages[1].write(ready.storage_append)
        node.stored(ready.storage_append)
    node.read_index(b"r")
    group.settle()
    assert group.reads == [(6, b"r")]


def test_a_lease_runs_from_the_sending_of_what_a_quorum_answered() -> None:
    group = with_lease()
    elected_at = START_US + TIMEOUT_US
    leader = group.elect(1)
    assert leader.lease_until_us == elected_at + TIMEOUT_US * 9 // 10
    group.at(elected_at + 5_000)
    leader.tick()
    group.settle()
    assert leader.lease_until_us == elected_at + 5_000 + TIMEOUT_US * 9 // 10
    group.cut_off = {2, 3}
    group.at(elected_at + 7_000)
    leader.tick()
    group.settle()
    assert leader.lease_until_us == elected_at + 5_000 + TIMEOUT_US * 9 // 10
    leader.read_index(b"r")
    group.settle()
    assert group.reads == [(leader.commit_index, b"r")]
    group.at(elected_at + 15_000)
    leader.read_index(b"late")
    group.settle()
    assert len(group.reads) == 1


def test_a_voter_that_heard_a_leader_helps_nobody_else_for_a_timeout() -> None:
    group = with_lease()
    group.elect(1)
    group.cut_off = {1}
    assert not group.nodes[3].campaign()
    for _ in range(40):
        group.nodes[2].tick()
        group.nodes[3].tick()
    group.settle()
    assert not group.nodes[3].is_leader
    group.at(START_US + 2 * TIMEOUT_US)
    group.elect(3)


def test_a_restarted_voter_does_not_vote_for_a_timeout() -> None:
    group = with_lease()
    group.elect(1)
    now_us = START_US + TIMEOUT_US + 1
    group.nodes[2] = group.start(2, now_us=now_us)
    request = Message(MessageKind.VOTE, 2, 3, 9, 100, 8)
    group.nodes[2].step(request)
    assert group.nodes[2].term < 9
    group.nodes[2].at(now_us + TIMEOUT_US).step(request)
    assert group.nodes[2].term == 9


def test_a_leader_gives_up_its_lease_before_a_transfer() -> None:
    group = with_lease()
    leader = group.elect(1)
    group.cut_off = {2}
    leader.transfer_leader(2)
    assert leader.lease_until_us == 0
    group.settle()
    assert leader.propose(b"a") is None, "a proposal would race with the new leader"
    group.cut_off = set()
    leader.tick()
    group.settle()
    assert leader.lease_until_us == 0, "the target may still act on what it was told"
    leader.transfer_leader(3)
    group.settle()
    assert group.nodes[3].is_leader


def test_a_leader_whose_transfer_came_to_nothing_leads_a_new_term_with_a_lease() -> None:
    group = with_lease()
    leader = group.elect(1)
    term = leader.term
    group.cut_off = {2}
    leader.transfer_leader(2)
    for _ in range(12):
        assert leader.term > term or leader.lease_until_us == 0
        leader.tick()
        group.settle()
    assert leader.is_leader
    assert leader.term == term + 1
    assert leader.lease_until_us > 0
    assert leader.propose(b"a") is not None
    group.nodes[2].step(Message(MessageKind.TIMEOUT_NOW, 2, 1, term))
    group.cut_off = set()
    group.settle()
    assert not group.nodes[2].is_leader, (
        "a quorum voted for the leader of the term that it stood for"
    )


def test_a_lone_voter_holds_a_lease_without_asking() -> None:
    group = with_lease((1,))
    node = group.elect(1)
    node.at(START_US + 10 * TIMEOUT_US)
    assert node.lease_until_us == START_US + 10 * TIMEOUT_US + TIMEOUT_US * 9 // 10


def test_learners_of_a_lone_voter_receive_the_log_at_once() -> None:
    group = Group((1,))
    leader = group.elect(1)
    group.storages[2] = MemoryLogStorage(index=5, term=1)
    group.storages[2].conf_state = ConfState((1,), learners=(2,))
    group.applied[2] = []
    group.nodes[2] = group.start(2)
    leader.propose_conf_change(ConfChange((Change(ChangeKind.ADD_LEARNER, 2),)))
    group.settle()
    leader.propose(b"a")
    group.settle()
    assert group.applied[2] == [b"", b"a"]


def test_a_membership_change_that_does_not_fit_becomes_an_empty_entry() -> None:
    group = Group((1, 2, 3))
    leader = group.elect(1)
    removal = tuple(Change(ChangeKind.REMOVE, node) for node in (1, 2, 3))
    for change in (
        ConfChange(),
        ConfChange(removal),
        ConfChange(removal, Transition.JOINT_IMPLICIT),
    ):
        assert leader.propose_conf_change(change) is not None
        group.settle()
        assert leader.raft.tracker.configuration.voters == {1, 2, 3}


def test_a_change_that_a_snapshot_already_holds_is_not_made_again() -> None:
    storage = MemoryLogStorage(ConfState((1, 2)), index=5, term=1)
    node = RawNode(Config(1, storage, random.Random(1), applied=5))
    snapshot = Snapshot(9, 1, ConfState((1, 2, 3)))
    node.step(Message(MessageKind.SNAPSHOT, 1, 2, 1, snapshot=snapshot))
    late = Entry(7, 1, b"", EntryKind.CONF_CHANGE)
    assert node.apply_conf_change(late) == snapshot.conf_state


def test_a_node_that_left_tells_a_candidate_what_is_committed() -> None:
    gone = MemoryLogStorage(ConfState((3,)), index=8, term=1)
    gone.append([Entry(9, 1, b"tail")])
    node = RawNode(Config(1, gone, random.Random(1), applied=8))
    node.step(Message(MessageKind.VOTE, 1, 3, 2, 8, 1))
    ready = node.ready()
    assert ready.storage_append is not None
    refusals = [
        answer
        for answer in ready.storage_append.responses
        if answer.kind is MessageKind.VOTE_RESPONSE
    ]
    assert [(answer.reject, answer.index, answer.log_term) for answer in refusals] == [(True, 8, 1)]


def test_answers_of_strangers_are_dropped() -> None:
    group = Group((1, 2, 3))
    leader = group.elect(1)
    stranger = Message(MessageKind.APPEND_RESPONSE, 1, 9, leader.term + 5)
    assert not leader.step(stranger)
    assert leader.is_leader


@pytest.mark.parametrize(
    "options",
    [
        {"node_id": 0},
        {"heartbeat_ticks": 0},
        {"election_ticks": 1},
        {"inflight_messages_max": 0},
        {"inflight_bytes_max": 1},
        {"election_timeout_us": 5, "check_quorum": False},
        {"clock_drift": 1.0},
    ],
)
def test_a_configuration_without_sense_is_refused(options: dict[str, Any]) -> None:
    valid: dict[str, Any] = {
        "node_id": 1,
        "storage": MemoryLogStorage(),
        "random": random.Random(0),
    }
    with pytest.raises(ValueError):
        Config(**(valid | options))
