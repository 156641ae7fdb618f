"""The format of etcd's data files, and how etcd prints what the core holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardforge.raft.confchange import (
    Change,
    ChangeKind,
    ConfChange,
    Configuration,
    decode_conf_change,
)
from shardforge.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfState,
    Entry,
    EntryKind,
    Message,
    MessageKind,
)
from shardforge.raft.progress import Progress, ProgressState
from shardforge.raft.ready import Ready
from shardforge.raft.state import Role

V1 = b"v1"
"""The context by which the interpreter knows a change that etcd proposes in its older form."""

_ARGUMENT = re.compile(r"([\w-]+)(?:=(\([^)]*\)|\S+))?")
_LOGGER = re.compile(r"\s*(DEBUG|INFO|WARN|ERROR) ")
_CHANGES = {
    "v": ChangeKind.ADD_VOTER,
    "l": ChangeKind.ADD_LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}
_ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}
_STATES = {
    ProgressState.PROBE: "StateProbe",
    ProgressState.REPLICATE: "StateReplicate",
    ProgressState.SNAPSHOT: "StateSnapshot",
}
_KINDS = {
    MessageKind.APPEND: "MsgApp",
    MessageKind.APPEND_RESPONSE: "MsgAppResp",
    MessageKind.HEARTBEAT: "MsgHeartbeat",
    MessageKind.HEARTBEAT_RESPONSE: "MsgHeartbeatResp",
    MessageKind.SNAPSHOT: "MsgSnap",
    MessageKind.VOTE: "MsgVote",
    MessageKind.VOTE_RESPONSE: "MsgVoteResp",
    MessageKind.PRE_VOTE: "MsgPreVote",
    MessageKind.PRE_VOTE_RESPONSE: "MsgPreVoteResp",
    MessageKind.TIMEOUT_NOW: "MsgTimeoutNow",
    MessageKind.STORAGE_APPEND: "MsgStorageAppend",
    MessageKind.STORAGE_APPEND_RESPONSE: "MsgStorageAppendResp",
    MessageKind.STORAGE_APPLY: "MsgStorageApply",
    MessageKind.STORAGE_APPLY_RESPONSE: "MsgStorageApplyResp",
}


@dataclass
class Case:
    """One command of a script with its expected output."""

    line: int
    command: str
    words: list[str]
    options: dict[str, list[str]]
    input: str
    expected: str

    def flag(self, name: str, default: str = "false") -> str:
        return self.options.get(name, [default])[0]

    def nodes(self) -> list[int]:
        return [int(word) for word in self.words]


def cases(path: Path) -> Iterator[Case]:
    """The cases of a script in order."""
    lines = path.read_text(encoding="utf-8").split("\n")
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if not line.strip() or line.startswith("#"):
            continue
        start = position
        command, _, rest = line.partition(" ")
        given = []
        while lines[position] != "----":
            given.append(lines[position])
            position += 1
        position += 1
        output = []
        if lines[position] == "----":
            position += 1
            while lines[position : position + 2] != ["----", "----"]:
                output.append(lines[position])
                position += 1
            position += 2
        else:
            while position < len(lines) and lines[position].strip():
                output.append(lines[position])
                position += 1
        words, options = _arguments(rest)
        yield Case(start, command, words, options, "\n".join(given), "\n".join(output))


def _arguments(text: str) -> tuple[list[str], dict[str, list[str]]]:
    words: list[str] = []
    options: dict[str, list[str]] = {}
    for name, value in _ARGUMENT.findall(text):
        if not value:
            words.append(name)
        else:
            options.setdefault(name, []).extend(
                part.strip() for part in value.strip("()").split(",")
            )
    return words, options


def without_logging(text: str) -> str:
    """The output that is not a logger's; `ok` when there is none."""
    kept = [
        line.rstrip() for line in text.split("\n") if line.strip() and not _LOGGER.match(line + " ")
    ]
    return "\n".join(kept) or "ok"


def changes(text: str) -> tuple[Change, ...]:
    """Membership changes as etcd writes them: `v1 l2 r3 u4`."""
    return tuple(Change(_CHANGES[word[0]], int(word[1:])) for word in text.split())


def _ids(ids: Sequence[int]) -> str:
    return " ".join(str(node) for node in ids)


def show_configuration(configuration: Configuration) -> str:
    state = configuration.conf_state()
    shown = f"voters=({_ids(state.voters)})"
    if state.voters_outgoing:
        shown += f"&&({_ids(state.voters_outgoing)})"
    if state.learners:
        shown += f" learners=({_ids(state.learners)})"
    if state.learners_next:
        shown += f" learners_next=({_ids(state.learners_next)})"
    return shown + (" autoleave" if state.auto_leave else "")


def show_progress(progress: Progress) -> str:
    shown = f"{_STATES[progress.state]} match={progress.match} next={progress.next}"
    if progress.is_learner:
        shown += " learner"
    if progress.paused:
        shown += " paused"
    if progress.pending_snapshot:
        shown += f" pendingSnap={progress.pending_snapshot}"
    if not progress.recently_active:
        shown += " inactive"
    if len(progress.inflights):
        shown += f" inflight={len(progress.inflights)}" + (
            "[full]" if progress.inflights.full else ""
        )
    return shown


def show_role(role: Role) -> str:
    return _ROLES[role]


def show_entry(entry: Entry) -> str:
    if entry.kind is EntryKind.NORMAL:
        return f'{entry.term}/{entry.index} EntryNormal "{entry.data.decode()}"'
    change: ConfChange = decode_conf_change(entry.data)
    letters = {kind: letter for letter, kind in _CHANGES.items()}
    shown = " ".join(f"{letters[part.kind]}{part.node}" for part in change.changes)
    name = "EntryConfChange" if change.context == V1 else "EntryConfChangeV2"
    return f"{entry.term}/{entry.index} {name} {shown}".rstrip()


def show_conf_state(state: ConfState) -> str:
    auto_leave = str(state.auto_leave).lower()
    return (
        f"Voters:[{_ids(state.voters)}] VotersOutgoing:[{_ids(state.voters_outgoing)}] "
        f"Learners:[{_ids(state.learners)}] LearnersNext:[{_ids(state.learners_next)}] AutoLeave:{auto_leave}"
    )


def _who(node: int) -> str:
    return {APPEND_THREAD: "AppendThread", APPLY_THREAD: "ApplyThread"}.get(node, str(node))


def show_message(message: Message, indent: str = "") -> str:
    shown = f"{indent}{_who(message.sender)}->{_who(message.to)} {_KINDS[message.kind]}"
    shown += f" Term:{message.term} Log:{message.log_term}/{message.index}"
    if message.reject:
        shown += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        shown += f" Commit:{message.commit}"
    if message.vote:
        shown += f" Vote:{message.vote}"
    if len(message.entries) == 1:
        shown += f" Entries:[{show_entry(message.entries[0])}]"
    elif message.entries:
        shown += " Entries:["
        shown += (
            "".join(f"\n{indent}  {show_entry(entry)}" for entry in message.entries)
            + f"\n{indent}]"
        )
    if message.snapshot is not None:
        snapshot = message.snapshot
        shown += f"\n{indent}  Snapshot: Index:{snapshot.index} Term:{snapshot.term}"
        shown += f" ConfState:{show_conf_state(snapshot.conf_state)}"
    if message.responses:
        shown += " Responses:["
        shown += (
            "".join(f"\n{show_message(part, indent + '  ')}" for part in message.responses)
            + f"\n{indent}]"
        )
    return shown


def show_ready(ready: Ready) -> str:
    lines = []
    if ready.soft_state is not None:
        lines.append(f"Lead:{ready.soft_state.lead} State:{_ROLES[ready.soft_state.role]}")
    if ready.hard_state is not None:
        hard = ready.hard_state
        vote = f" Vote:{hard.vote}" if hard.vote else ""
        lines.append(f"HardState Term:{hard.term}{vote} Commit:{hard.commit}")
    if ready.entries:
        lines += ["Entries:", *map(show_entry, ready.entries)]
    if ready.snapshot is not None:
        snapshot = ready.snapshot
        state = show_conf_state(snapshot.conf_state)
        lines.append(f"Snapshot Index:{snapshot.index} Term:{snapshot.term} ConfState:{state}")
    if ready.committed_entries:
        lines += ["CommittedEntries:", *map(show_entry, ready.committed_entries)]
    storage = [
        message for message in (ready.storage_append, ready.storage_apply) if message is not None
    ]
    if ready.messages or storage:
        lines += ["Messages:", *map(show_message, [*ready.messages, *storage])]
    if not lines:
        return "<empty Ready>"
    return "\n".join([f"Ready MustSync={str(ready.must_sync).lower()}:", *lines])
