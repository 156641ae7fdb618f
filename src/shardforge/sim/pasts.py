"""What readers of the past must have seen, given what was kept of a history of transactions. Pure.

The transactions follow one another: each appends its name to one list, under its lock. A reader sees the list, and so
how far the state is that it reads, and in which history.

With asynchronous replication a commit that was acknowledged may be lost, but only one that nobody has seen: what is
read, at any age, a majority has. So every name that was read stays where it is, and a reader whose age is bounded
need not have seen what is lost, though the list has grown as long again since.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple


class Move(NamedTuple):
    """An acknowledged transaction, how long the list was with it, and when that was known."""

    name: int
    number: int
    at: float


class Look(NamedTuple):
    """The list that somebody read; it is empty in a state before the first transaction."""

    names: Sequence[int]
    began: float
    age_max: float | None
    """How old the state may have been when the reading began; None: as old as it likes."""


def wrong_pasts(
    acknowledged: Iterable[Move], looks: Iterable[Look], kept: Sequence[int], *, may_lose: bool
) -> list[str]:
    """What is wrong with what was acknowledged and read. `kept` is the list at the end."""
    moves = sorted(acknowledged, key=lambda move: move.at)
    lost = [move for move in moves if list(kept[move.number - 1 : move.number]) != [move.name]]
    wrong = [f"{move} was acknowledged, and is lost" for move in lost if not may_lose]
    lasting = [move for move in moves if move not in lost]
    times = [move.at for move in lasting]
    reached = [0, *accumulate((move.number for move in lasting), max)]
    for look in looks:
        number = len(look.names)
        if look.names != kept[:number]:
            wrong.append(f"{look} saw what is lost")
        if look.age_max is not None:
            due = reached[bisect_left(times, look.began - look.age_max)]
            if number < due:
                wrong.append(f"{look} saw an older state than it accepts: {due} moves were due")
    return wrong
