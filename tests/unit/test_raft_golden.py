"""etcd's own data files, run against our core: quorums, membership changes, whole nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardforge.raft import confchange, quorum
from shardforge.raft.confchange import ConfChangeError
from shardforge.raft.quorum import VoteResult
from shardforge.raft.tracker import Tracker
from tests.golden.raft import script
from tests.golden.raft.interpreter import Interpreter
from tests.golden.raft.script import Case

DATA = Path(__file__).parents[1] / "golden" / "raft"
NOT_APPLICABLE: dict[str, str] = {}
"""Files that do not apply to our core, with the reason."""
VOTES = {VoteResult.WON: "VoteWon", VoteResult.LOST: "VoteLost", VoteResult.PENDING: "VotePending"}


def files(folder: str) -> list[Path]:
    return [
        path for path in sorted((DATA / folder).glob("*.txt")) if path.name not in NOT_APPLICABLE
    ]


def test_no_file_went_missing() -> None:
    assert len(files("quorum")) + len(files("confchange")) == 13
    assert len(files("interaction")) + len(NOT_APPLICABLE) == 20


@pytest.mark.parametrize("path", files("interaction"), ids=lambda path: path.stem)
def test_interaction(path: Path) -> None:
    Interpreter().run(path)


@pytest.mark.parametrize("path", files("quorum"), ids=lambda path: path.stem)
def test_quorum(path: Path) -> None:
    for case in script.cases(path):
        got = committed(case) if case.command == "committed" else vote(case)
        assert got == case.expected, f"{path.name}:{case.line}"


def voters_and_values(case: Case, option: str) -> tuple[list[int], list[int], dict[int, str]]:
    incoming = [int(part) for part in case.options.get("cfg", ())]
    given = case.options.get("cfgj", ())
    outgoing = [] if given == ["zero"] else [int(part) for part in given]
    everyone = list(dict.fromkeys([*incoming, *outgoing]))
    values = dict(zip(everyone, case.options.get(option, ()), strict=True))
    return incoming, outgoing, {node: value for node, value in values.items() if value != "_"}


def committed(case: Case) -> str:
    incoming, outgoing, values = voters_and_values(case, "idx")
    indexes = {node: int(value) for node, value in values.items()}
    if "cfgj" in case.options:
        index = quorum.joint_index(incoming, outgoing, indexes)
        assert index == quorum.joint_index(outgoing, incoming, indexes)
    else:
        index = quorum.majority_index(incoming, indexes)
        assert index == quorum.joint_index(incoming, [], indexes)
    shown = "∞" if index == quorum.EVERYTHING else str(index)
    return show_indexes({*incoming, *outgoing}, indexes) + shown


def show_indexes(voters: set[int], indexes: dict[int, int]) -> str:
    if not voters:
        return "<empty majority quorum>"
    rank = {
        node: place
        for place, node in enumerate(sorted(voters, key=lambda n: (indexes.get(n, 0), n)))
    }
    lowest = {
        node: min(rank[n] for n in voters if indexes.get(n, 0) == indexes.get(node, 0))
        for node in voters
    }
    width = len(voters)
    lines = [" " * width + "    idx"]
    for node in sorted(voters):
        bar = (
            "x" * lowest[node] + ">" + " " * (width - lowest[node])
            if node in indexes
            else "?" + " " * width
        )
        lines.append(f"{bar} {indexes.get(node, 0):5d}    (id={node})")
    return "\n".join(lines) + "\n"


def vote(case: Case) -> str:
    incoming, outgoing, values = voters_and_values(case, "votes")
    votes = {node: value == "y" for node, value in values.items()}
    if "cfgj" in case.options:
        result = quorum.joint_vote(incoming, outgoing, votes)
        assert result is quorum.joint_vote(outgoing, incoming, votes)
    else:
        result = quorum.majority_vote(incoming, votes)
        assert result is quorum.joint_vote(incoming, [], votes)
    return VOTES[result]


@pytest.mark.parametrize("path", files("confchange"), ids=lambda path: path.stem)
def test_confchange(path: Path) -> None:
    tracker = Tracker(10, 1 << 20)
    for last_index, case in enumerate(script.cases(path)):
        assert change_membership(tracker, last_index, case) == case.expected, (
            f"{path.name}:{case.line}"
        )


def change_membership(tracker: Tracker, last_index: int, case: Case) -> str:
    changes = script.changes(case.input)
    present = tracker.configuration
    try:
        if case.command == "simple":
            changed = confchange.simple(present, changes)
        elif case.command == "enter-joint":
            auto_leave = case.flag("autoleave") == "true"
            changed = confchange.enter_joint(present, changes, auto_leave=auto_leave)
        else:
            changed = confchange.leave_joint(present)
    except ConfChangeError as error:
        return str(error)
    tracker.switch_to(changed, last_index)
    assert confchange.restore(changed.conf_state()) == changed
    shown = [f"{node}: {script.show_progress(known)}" for node, known in tracker.progress.items()]
    return "\n".join([script.show_configuration(changed), *shown])
