"""Window frames: which rows of its partition each row looks at.

RANGE with an offset moves the row's sort value by the offset with the type's own + and - and searches for the bound,
so it needs one ORDER BY key. Source: PostgreSQL 15, src/backend/executor/nodeWindowAgg.c.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql import pgdata
from shardforge.sql.bind import tree
from shardforge.sql.execute.context import Row
from shardforge.sql.execute.expressions import Layout, compile_expression, compile_optional
from shardforge.sql.execute.expressions.calls import implementation_of
from shardforge.sql.types.registry import sort_key

Bounds = list[tuple[int, int]]


class FrameFinder:
    """The frames of one window definition."""

    def __init__(self, frame: tree.Frame, order_by: Sequence[tree.SortKey], layout: Layout) -> None:
        self._frame = frame
        self._start = compile_optional(frame.start_offset, {})
        self._end = compile_optional(frame.end_offset, {})
        self.growing = frame.start == "unbounded_preceding" and not frame.exclude
        """Each frame contains the one before it."""
        self._offset_range = frame.mode == "range" and (
            frame.start in ("preceding", "following") or frame.end in ("preceding", "following")
        )
        if self._offset_range:
            if len(order_by) != 1:
                raise QueryError(
                    "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
                    "42P20",
                )
            self._prepare_range(order_by[0], layout)

    def _prepare_range(self, key: tree.SortKey, layout: Layout) -> None:
        self._descending = key.descending
        self._value = compile_expression(key.expression, layout)
        self._transform = sort_key(key.expression.type)
        offset = self._frame.start_offset or self._frame.end_offset
        assert offset is not None, "a RANGE with an offset has one"
        self._plus = _operator("+", key.expression.type, offset.type)
        self._minus = _operator("-", key.expression.type, offset.type)

    # ---- bounds ----------------------------------------------------------------------------------

    def bounds(
        self, rows: list[Row], peer_start: Sequence[int], peer_end: Sequence[int], ctx: Any
    ) -> Bounds:
        """(first, one past the last) of each row's frame, exclusions aside."""
        frame, total = self._frame, len(rows)
        start = self._offset(self._start, "starting", ctx)
        end = self._offset(self._end, "ending", ctx)
        if frame.mode == "rows":
            firsts = [self._row_bound(frame.start, at, start, total) for at in range(total)]
            lasts = [self._row_bound(frame.end, at, end, total) + 1 for at in range(total)]
        elif frame.mode == "groups":
            groups = _group_numbers(peer_start)
            begins = [at for at in range(total) if peer_start[at] == at]
            firsts = [self._group_start(groups, begins, at, start, total) for at in range(total)]
            lasts = [self._group_end(groups, begins, at, end, total) for at in range(total)]
        elif self._offset_range:
            return self._range_bounds(rows, peer_start, peer_end, start, end, ctx)
        else:
            firsts = [
                0 if frame.start == "unbounded_preceding" else peer_start[at] for at in range(total)
            ]
            lasts = [
                total if frame.end == "unbounded_following" else peer_end[at] for at in range(total)
            ]
        return [
            (min(max(first, 0), total), max(min(last, total), 0))
            for first, last in zip(firsts, lasts, strict=True)
        ]

    @staticmethod
    def _offset(function: Any, which: str, ctx: Any) -> Any:
        if function is None:
            return None
        value = function((), ctx)
        if value is None:
            raise QueryError(f"frame {which} offset must not be null", "22004")
        negative = value.months * 30 + value.days < 0 if hasattr(value, "months") else value < 0
        if negative:
            raise QueryError(f"frame {which} offset must not be negative", "22013")
        return value

    @staticmethod
    def _row_bound(kind: str, at: int, offset: Any, total: int) -> int:
        if kind == "unbounded_preceding":
            return 0
        if kind == "unbounded_following":
            return total - 1
        if kind == "current":
            return at
        return at - int(offset) if kind == "preceding" else at + int(offset)

    def _group_start(
        self, groups: Sequence[int], begins: Sequence[int], at: int, offset: Any, total: int
    ) -> int:
        if self._frame.start == "unbounded_preceding":
            return 0
        wanted = self._row_bound(self._frame.start, groups[at], offset, len(begins))
        return begins[max(wanted, 0)] if wanted < len(begins) else total

    def _group_end(
        self, groups: Sequence[int], begins: Sequence[int], at: int, offset: Any, total: int
    ) -> int:
        if self._frame.end == "unbounded_following":
            return total
        wanted = self._row_bound(self._frame.end, groups[at], offset, len(begins))
        if wanted < 0:
            return 0
        return begins[wanted + 1] if wanted + 1 < len(begins) else total

    def _range_bounds(
        self, rows: list[Row], peer_start: Sequence[int], peer_end: Sequence[int],
        start: Any, end: Any, ctx: Any,
    ) -> Bounds:  # fmt: skip
        """RANGE with offsets; NULLs are in a frame of their own peers."""
        values = [self._value(row, ctx) for row in rows]
        keys = [self._key(value) for value in values]
        found: Bounds = []
        for at, value in enumerate(values):
            if value is None:
                first = 0 if self._frame.start == "unbounded_preceding" else peer_start[at]
                last = len(rows) if self._frame.end == "unbounded_following" else peer_end[at]
            else:
                first = self._first_within(self._frame.start, keys, value, start, peer_start[at])
                last = self._end_within(self._frame.end, keys, value, end, peer_end[at])
            found.append((first, last))
        return found

    def _key(self, value: Any) -> Any:
        return value if value is None or self._transform is None else self._transform(value)

    def _moved(self, kind: str, value: Any, offset: Any) -> Any:
        add = (kind == "following") is not self._descending
        return self._key((self._plus if add else self._minus)(value, offset))

    def _first_within(self, kind: str, keys: list[Any], value: Any, offset: Any, peers: int) -> int:
        if kind == "unbounded_preceding":
            return 0
        if kind == "current":
            return peers
        bound = self._moved(kind, value, offset)
        inside = operator.le if self._descending else operator.ge
        return next(
            (i for i, k in enumerate(keys) if k is not None and inside(k, bound)), _after(keys)
        )

    def _end_within(self, kind: str, keys: list[Any], value: Any, offset: Any, peers: int) -> int:
        if kind == "unbounded_following":
            return len(keys)
        if kind == "current":
            return peers
        bound = self._moved(kind, value, offset)
        inside = operator.ge if self._descending else operator.le
        last = max(
            (i for i, k in enumerate(keys) if k is not None and inside(k, bound)), default=-1
        )
        return last + 1

    # ---- frames ----------------------------------------------------------------------------------

    def finder(
        self, rows: list[Row], peer_start: Sequence[int], peer_end: Sequence[int], ctx: Any
    ) -> Callable[[int], Sequence[int]]:
        """A function from a row's number to the numbers of the rows in its frame."""
        bounds = self.bounds(rows, peer_start, peer_end, ctx)
        exclude = self._frame.exclude

        def frame(at: int) -> Sequence[int]:
            first, last = bounds[at]
            whole = range(first, max(last, first))
            if not exclude or exclude == "no others":
                return whole
            if exclude == "current row":
                return [i for i in whole if i != at]
            peers = range(peer_start[at], peer_end[at])
            if exclude == "group":
                return [i for i in whole if i not in peers]
            return [i for i in whole if i == at or i not in peers]

        return frame


def _after(keys: list[Any]) -> int:
    """One past the last row that is not NULL."""
    return max((i for i, k in enumerate(keys) if k is not None), default=-1) + 1


def _group_numbers(peer_start: Sequence[int]) -> list[int]:
    numbers: list[int] = []
    number = -1
    for at, start in enumerate(peer_start):
        number += start == at
        numbers.append(number)
    return numbers


def _operator(name: str, left: int, right: int) -> Callable[[Any, Any], Any]:
    for row in pgdata.operators_named(name):
        if row.oprleft == left and row.oprright == right:
            return implementation_of(row.oprcode, (left, right), row.oprresult).call
    raise unsupported("RANGE with an offset of this type")
