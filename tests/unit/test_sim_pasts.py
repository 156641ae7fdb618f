"""The judge of what followers read, on small histories: what asynchronous replication may lose, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shardforge.sim.pasts import Look, Move, wrong_pasts

FIRST, SECOND = Move(11, 1, at=1.0), Move(12, 2, at=2.0)
INSTEAD = Move(13, 2, at=5.0)
"""The second was lost, and another took its place."""


def bounded(*names: int, at: float) -> Look:
    return Look(names, at, age_max=1.0)


def eventual(*names: int, at: float) -> Look:
    return Look(names, at, age_max=None)


def strong(*names: int, at: float) -> Look:
    return Look(names, at, age_max=0.0)


Case = tuple[Sequence[Move], Sequence[Look], tuple[int, ...], str]
"""What was acknowledged, read and kept, and a part of what is wrong; "": nothing is."""

OLD = "older state than it accepts: "
BOTH: list[Case] = [
    ([FIRST, SECOND], [bounded(11, at=2.5), bounded(11, 12, at=3.5)], (11, 12), ""),
    ([FIRST, SECOND], [bounded(11, at=3.5)], (11, 12), OLD + "2"),
    ([FIRST, SECOND], [eventual(at=9.0), eventual(11, at=9.0)], (11, 12), ""),
    ([FIRST, SECOND], [strong(11, at=1.5), strong(11, 12, at=2.5)], (11, 12), ""),
    ([FIRST, SECOND], [strong(11, at=2.5)], (11, 12), OLD + "2"),
    ([FIRST], [eventual(11, 12, at=1.5)], (11, 12), ""),  # its client never heard of it
    ([FIRST], [eventual(11, 12, at=1.5)], (11,), "saw what is lost"),
    ([FIRST, INSTEAD], [eventual(11, 12, at=9.0)], (11, 13), "saw what is lost"),
    ([FIRST, SECOND], [eventual(12, at=9.0)], (11, 12), "saw what is lost"),
]


@pytest.mark.parametrize("may_lose", [False, True])
@pytest.mark.parametrize(("moves", "looks", "kept", "part"), BOTH)
def test_what_any_replication_promises(
    moves: Sequence[Move],
    looks: Sequence[Look],
    kept: tuple[int, ...],
    part: str,
    *,
    may_lose: bool,
) -> None:
    wrong = wrong_pasts(moves, looks, kept, may_lose=may_lose)
    assert len(wrong) == bool(part)
    assert part in "".join(wrong)


LOST: list[Case] = [
    ([FIRST, SECOND], [bounded(11, at=9.0)], (11,), ""),
    ([FIRST, SECOND, INSTEAD], [bounded(11, at=5.5), bounded(11, 13, at=9.0)], (11, 13), ""),
    ([FIRST, SECOND, INSTEAD], [strong(11, at=3.0)], (11, 13), ""),
    # Those that were kept are due as ever.
    ([FIRST, SECOND], [bounded(at=9.0)], (11,), OLD + "1"),
    ([FIRST, SECOND, INSTEAD], [bounded(11, at=6.5)], (11, 13), OLD + "2"),
    # Nobody reads what may yet be lost: not on a follower either, and whoever comes next has read it.
    ([FIRST, SECOND], [bounded(11, 12, at=2.5)], (11,), "saw what is lost"),
    ([FIRST, SECOND], [eventual(11, 12, at=2.5)], (11,), "saw what is lost"),
    ([FIRST, SECOND], [strong(11, 12, at=2.5)], (11,), "saw what is lost"),
]


@pytest.mark.parametrize(("moves", "looks", "kept", "part"), LOST)
def test_what_asynchronous_replication_may_lose(
    moves: Sequence[Move], looks: Sequence[Look], kept: tuple[int, ...], part: str
) -> None:
    wrong = wrong_pasts(moves, looks, kept, may_lose=True)
    assert len(wrong) == bool(part)
    assert part in "".join(wrong)
    [first, *_] = wrong_pasts(moves, looks, kept, may_lose=False)
    assert "was acknowledged, and is lost" in first
