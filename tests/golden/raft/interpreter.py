"""Runs etcd's interaction scripts against our nodes, printing what etcd's own interpreter prints."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from shardforge.raft.confchange import ConfChange, Transition
from shardforge.raft.config import NO_LIMIT, Config
from shardforge.raft.memory_log import MemoryLogStorage
from shardforge.raft.messages import ConfState, Entry, EntryKind, HardState, Message, Snapshot
from shardforge.raft.rawnode import RawNode
from shardforge.raft.ready import Ready
from tests.golden.raft import script
from tests.golden.raft.script import Case

_TRANSITIONS = {
    "auto": Transition.AUTO,
    "implicit": Transition.JOINT_IMPLICIT,
    "explicit": Transition.JOINT_EXPLICIT,
}


class Node:
    """A node with its storage, and a state machine that keeps the data it applied."""

    def __init__(self, node_id: int, case: Case) -> None:
        ids = {
            name: tuple(int(part) for part in case.options.get(name, ()))
            for name in ("voters", "learners")
        }
        self.index = int(case.flag("index", "0"))
        state = ConfState(voters=ids["voters"], learners=ids["learners"])
        self.storage = MemoryLogStorage(state, index=self.index, term=1 if self.index else 0)
        if self.index:
            self.storage.hard_state = HardState(commit=self.index)
            self.storage.latest_snapshot = Snapshot(self.index, 1, state)
        self.async_writes = case.flag("async-storage-writes") == "true"
        self.raw = RawNode(
            Config(
                node_id,
                self.storage,
                random.Random(node_id),
                applied=self.index,
                election_ticks=3,
                heartbeat_ticks=1,
                pre_vote=case.flag("prevote") == "true",
                check_quorum=case.flag("checkquorum") == "true",
                election_timeout_us=1 if case.flag("read-only", "safe") == "lease-based" else 0,
                async_storage_writes=self.async_writes,
                applying_bytes_max=int(case.flag("max-committed-size-per-ready", str(NO_LIMIT))),
                inflight_messages_max=int(case.flag("inflight", "256")),
                forward_proposals=True,
                validate_conf_changes=case.flag("disable-conf-change-validation") != "true",
                step_down_on_removal=case.flag("step-down-on-removal") == "true",
            )
        )
        # Past the time for which a restarted voter holds back.
        self.raw.at(10)
        self.append_work: deque[Message] = deque()
        self.apply_work: deque[Message] = deque()

    def write(
        self, hard: HardState | None, entries: Sequence[Entry], snapshot: Snapshot | None
    ) -> None:
        if snapshot is not None:
            self.storage.restore(snapshot)
        self.storage.append(entries)
        if hard is not None:
            self.storage.hard_state = hard

    def apply(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            latest = self.storage.latest_snapshot
            state = latest.conf_state if latest is not None else ConfState()
            data = latest.data if latest is not None else b""
            if entry.kind is EntryKind.CONF_CHANGE:
                state = self.raw.apply_conf_change(entry)
            self.storage.latest_snapshot = Snapshot(
                entry.index, entry.term, state, data + entry.data
            )


class Interpreter:
    """A group of nodes and the messages between them."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.messages: list[Message] = []
        self.quiet = False
        self.out: list[str] = []

    def run(self, path: Path) -> None:
        """Run a script; fails at the first case whose output differs."""
        for case in script.cases(path):
            got = script.without_logging(self.handle(case))
            expected = script.without_logging(case.expected)
            assert got == expected, (
                f"{path.name}:{case.line}: {case.command} {' '.join(case.words)}\n{got}"
            )

    def handle(self, case: Case) -> str:
        self.out = []
        command: Callable[[Case], None] = getattr(self, "do_" + case.command.replace("-", "_"))
        command(case)
        if self.quiet or case.flag("log-level", "debug") == "none":
            return "ok"
        return "\n".join(self.out)

    def show(self, text: str, indent: bool = False) -> None:
        self.out += ["  " + line if indent else line for line in text.split("\n")]

    def node(self, case: Case) -> Node:
        return self.nodes[int(case.words[0])]

    # Commands of one node.

    def do_log_level(self, case: Case) -> None:
        self.quiet = case.words[0] == "none"

    def do_add_nodes(self, case: Case) -> None:
        for _ in range(int(case.words[0])):
            node_id = len(self.nodes) + 1
            self.nodes[node_id] = Node(node_id, case)

    def do_campaign(self, case: Case) -> None:
        self.node(case).raw.campaign()

    def do_propose(self, case: Case) -> None:
        if self.node(case).raw.propose(case.words[1].encode()) is None:
            self.show("raft proposal dropped")

    def do_propose_conf_change(self, case: Case) -> None:
        context = script.V1 if case.flag("v1") == "true" else b""
        transition = _TRANSITIONS[case.flag("transition", "auto")]
        self.node(case).raw.propose_conf_change(
            ConfChange(script.changes(case.input), transition, context)
        )

    def do_compact(self, case: Case) -> None:
        self.node(case).storage.compact(int(case.words[1]))
        self.do_raft_log(case)

    def do_raft_log(self, case: Case) -> None:
        storage = self.node(case).storage
        if storage.first_index() <= storage.last_index():
            for entry in storage.entries(storage.first_index(), storage.last_index() + 1, NO_LIMIT):
                self.show(script.show_entry(entry))

    def do_status(self, case: Case) -> None:
        for member, progress in self.node(case).raw.raft.tracker.progress.items():
            self.show(f"{member}: {script.show_progress(progress)}")

    def do_raft_state(self, _case: Case) -> None:
        for node_id, node in self.nodes.items():
            raft = node.raw.raft
            voter = "Voter" if node_id in raft.tracker.configuration.voters else "Non-Voter"
            self.show(
                f"{node_id}: {script.show_role(raft.role)} ({voter}) Term:{raft.term} Lead:{raft.lead}"
            )

    def do_tick_heartbeat(self, case: Case) -> None:
        self.node(case).raw.tick()

    def do_set_randomized_election_timeout(self, case: Case) -> None:
        self.node(case).raw.raft.randomized_election_ticks = int(case.flag("timeout"))

    def do_forget_leader(self, case: Case) -> None:
        self.node(case).raw.forget_leader()

    def do_report_unreachable(self, case: Case) -> None:
        self.node(case).raw.report_unreachable(int(case.words[1]))

    def do_transfer_leadership(self, case: Case) -> None:
        self.nodes[int(case.flag("from"))].raw.transfer_leader(int(case.flag("to")))

    # Commands that move work along.

    def do_process_ready(self, case: Case) -> None:
        for node_id in case.nodes():
            several = len(case.words) > 1
            if several:
                self.show(f"> {node_id} handling Ready")
            self.process_ready(self.nodes[node_id], indent=several)

    def process_ready(self, node: Node, *, indent: bool) -> None:
        ready: Ready = node.raw.ready()
        self.show(script.show_ready(ready), indent)
        self.messages += ready.messages
        if node.async_writes:
            if ready.storage_append is not None:
                node.append_work.append(ready.storage_append)
            if ready.storage_apply is not None:
                node.apply_work.append(ready.storage_apply)
            return
        node.write(ready.hard_state, ready.entries, ready.snapshot)
        node.apply(ready.committed_entries)
        node.raw.advance(ready)

    def do_deliver_msgs(self, case: Case) -> None:
        for node_id in case.nodes():
            self.deliver(node_id, indent=False)
        for dropped in case.options.get("drop", ()):
            self.deliver(int(dropped), indent=False, drop=True)

    def deliver(self, node_id: int, *, indent: bool, drop: bool = False) -> None:
        mine = [message for message in self.messages if message.to == node_id]
        self.messages = [message for message in self.messages if message.to != node_id]
        for message in mine:
            self.show(("dropped: " if drop else "") + script.show_message(message), indent)
            if not drop and not self.nodes[node_id].raw.step(message):
                self.show("raft: cannot step as peer not found", indent)

    def do_process_append_thread(self, case: Case) -> None:
        self._threads(case, "append", self.process_append)

    def do_process_apply_thread(self, case: Case) -> None:
        self._threads(case, "apply", self.process_apply)

    def _threads(self, case: Case, name: str, process: Callable[[Node, bool], None]) -> None:
        for node_id in case.nodes():
            several = len(case.words) > 1
            if several:
                self.show(f"> {node_id} processing {name} thread")
            process(self.nodes[node_id], several)

    def process_append(self, node: Node, indent: bool) -> None:
        message = node.append_work.popleft()
        hard = HardState(message.term, message.vote, message.commit) if message.term else None
        node.write(hard, message.entries, message.snapshot)
        self._respond(message, indent)

    def process_apply(self, node: Node, indent: bool) -> None:
        message = node.apply_work.popleft()
        node.apply(message.entries)
        self._respond(message, indent)

    def _respond(self, message: Message, indent: bool) -> None:
        bare = Message(
            **{
                name: getattr(message, name)
                for name in Message.__struct_fields__
                if name != "responses"
            }
        )
        self.show("Processing:\n" + script.show_message(bare) + "\nResponses:", indent)
        for response in message.responses:
            self.show(script.show_message(response), indent)
            self.messages.append(response)

    def do_stabilize(self, case: Case) -> None:
        chosen = {node_id: self.nodes[node_id] for node_id in case.nodes() or self.nodes}
        busy = True
        while busy:
            busy = self._round(chosen)

    def _round(self, nodes: dict[int, Node]) -> bool:
        busy = False
        for node_id, node in nodes.items():
            if node.raw.has_ready():
                busy = True
                self.show(f"> {node_id} handling Ready")
                self.process_ready(node, indent=True)
        for node_id in nodes:
            if any(message.to == node_id for message in self.messages):
                busy = True
                self.show(f"> {node_id} receiving messages")
                self.deliver(node_id, indent=True)
        for name, process in (("append", self.process_append), ("apply", self.process_apply)):
            for node_id, node in nodes.items():
                work = node.append_work if name == "append" else node.apply_work
                if work:
                    busy = True
                    self.show(f"> {node_id} processing {name} thread")
                while work:
                    process(node, True)
        return busy
