"""Window functions proper: row_number, rank, ntile, lag, first_value and their kin.

A function is computed for a whole partition at once: `window_function(name)` gives `compute(partition) -> values`,
one value for each row in window order. The executor sorts, finds peers and frames, and evaluates arguments;
aggregates over windows are its own business. Source: PostgreSQL 15, src/backend/utils/adt/windowfuncs.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shardforge.errors import QueryError


@dataclass(slots=True)
class Partition:
    """The rows of one partition, in window order."""

    args: Sequence[tuple[Any, ...]]
    """The arguments' values for each row."""
    peer_start: Sequence[int]
    """For each row, the first row that sorts equal to it."""
    peer_end: Sequence[int]
    """For each row, one past the last row that sorts equal to it."""
    frame: Callable[[int], Sequence[int]]
    """The rows of a row's frame, exclusions left out, in order."""

    def __len__(self) -> int:
        return len(self.args)


WindowFunction = Callable[[Partition], list[Any]]


def window_function(name: str) -> WindowFunction | None:
    """The implementation of a window function, or None."""
    return _FUNCTIONS.get(name)


def _row_number(partition: Partition) -> list[int]:
    return list(range(1, len(partition) + 1))


def _rank(partition: Partition) -> list[int]:
    return [start + 1 for start in partition.peer_start]


def _dense_rank(partition: Partition) -> list[int]:
    ranks: list[int] = []
    rank = 0
    for row, start in enumerate(partition.peer_start):
        rank += start == row
        ranks.append(rank)
    return ranks


def _percent_rank(partition: Partition) -> list[float]:
    others = len(partition) - 1
    return [start / others if others else 0.0 for start in partition.peer_start]


def _cume_dist(partition: Partition) -> list[float]:
    total = len(partition)
    return [end / total for end in partition.peer_end]


def _ntile(partition: Partition) -> list[int | None]:
    """Buckets as equal as can be, the larger ones first; their number is the first row's argument."""
    total = len(partition)
    count = partition.args[0][0] if total else None
    if count is None:
        return [None] * total
    if count <= 0:
        raise QueryError("argument of ntile must be greater than zero", "22014")
    size, larger = divmod(total, count)
    boundary = larger * (size + 1)
    return [
        row // (size + 1) + 1 if row < boundary else larger + (row - boundary) // size + 1
        for row in range(total)
    ]


def _shifted(direction: int) -> WindowFunction:
    def compute(partition: Partition) -> list[Any]:
        total = len(partition)
        values: list[Any] = []
        for row, args in enumerate(partition.args):
            offset = args[1] if len(args) > 1 else 1
            if offset is None:
                values.append(None)
                continue
            target = row + direction * offset
            if 0 <= target < total:
                values.append(partition.args[target][0])
            else:
                values.append(args[2] if len(args) > 2 else None)
        return values

    return compute


def _first_value(partition: Partition) -> list[Any]:
    frames = map(partition.frame, range(len(partition)))
    return [partition.args[frame[0]][0] if len(frame) else None for frame in frames]


def _last_value(partition: Partition) -> list[Any]:
    frames = map(partition.frame, range(len(partition)))
    return [partition.args[frame[-1]][0] if len(frame) else None for frame in frames]


def _nth_value(partition: Partition) -> list[Any]:
    values: list[Any] = []
    for row, (_, position) in enumerate(partition.args):
        if position is None:
            values.append(None)
            continue
        if position <= 0:
            raise QueryError("argument of nth_value must be greater than zero", "22016")
        frame = partition.frame(row)
        values.append(partition.args[frame[position - 1]][0] if position <= len(frame) else None)
    return values


_FUNCTIONS: dict[str, WindowFunction] = {
    "row_number": _row_number,
    "rank": _rank,
    "dense_rank": _dense_rank,
    "percent_rank": _percent_rank,
    "cume_dist": _cume_dist,
    "ntile": _ntile,
    "lag": _shifted(-1),
    "lead": _shifted(1),
    "first_value": _first_value,
    "last_value": _last_value,
    "nth_value": _nth_value,
}
