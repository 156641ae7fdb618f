"""Access paths: which index answers which conditions of a table, and what that costs.

A condition helps when it compares a plain column with something known before the row is read (a constant, a
parameter, a column of an enclosing or outer row) of a type whose keys are the column's. Equalities on the first
columns of an index, then a range on the next one. What an access takes care of need not be checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shardforge.keys import BUCKETS
from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.plan.comparisons import (
    EQUAL,
    GREATER,
    GREATER_EQUAL,
    LESS,
    LESS_EQUAL,
    Comparison,
    as_comparison,
    same_key,
    strategy_of,
    without_relabel,
)
from shardforge.sql.plan.nodes import Access, Bound, Match
from shardforge.sql.types.registry import is_array, type_by_oid

DEFAULT_ROWS: Final = 1000.0
"""Rows of a table that was never counted."""
EQUAL_SHARE: Final = 0.005
RANGE_SHARE: Final = 0.3
IN_LIST_SIZE: Final = 10

SEEK_COST: Final = 8.0
"""Of one seek, in rows read in order."""
FETCH_COST: Final = 3.0
"""Of fetching the row behind an index entry."""


@dataclass(frozen=True, slots=True)
class ColumnCondition:
    """A condition on one column: `strategy` compares it with `value` (an array when `many`)."""

    attnum: int
    strategy: int
    value: Expression
    condition: Expression
    many: bool = False


def table_rows(table: Table) -> float:
    """How many rows the table may have."""
    return DEFAULT_ROWS if table.row_estimate < 0 else max(table.row_estimate, 1.0)


def column_conditions(scan: tree.Scan, conditions: Sequence[Expression]) -> list[ColumnCondition]:
    """What the conditions say about single columns of the scan."""
    attnums = dict(scan.columns)
    own = set(attnums)
    types = {column.id: column.type_oid for column in scan.table.columns}
    found = []
    for condition in conditions:
        if isinstance(condition, tree.ScalarArrayOp):
            made = _from_list(condition, attnums, own, types)
            if made is not None:
                found.append(made)
            continue
        comparison = as_comparison(condition)
        if comparison is None:
            continue
        for side in (comparison, comparison.flipped()):
            made = _from_comparison(side, condition, attnums, own, types)
            if made is not None:
                found.append(made)
                break
    return found


def _known(value: Expression, own: set[ColumnId]) -> bool:
    return not walk.references(value) & own and not walk.is_volatile(value)


def _from_comparison(
    comparison: Comparison,
    condition: Expression,
    attnums: dict[ColumnId, int],
    own: set[ColumnId],
    types: dict[int, int],
) -> ColumnCondition | None:
    column = without_relabel(comparison.left)
    if not isinstance(column, tree.ColumnRef):
        return None
    attnum = attnums.get(column.column)
    if attnum is None or attnum <= 0 or not _known(comparison.right, own):
        return None
    if not same_key(types[attnum], comparison.right.type) or not same_key(
        types[attnum], comparison.left.type
    ):
        return None
    return ColumnCondition(attnum, comparison.strategy, comparison.right, condition)


def _from_list(
    condition: tree.ScalarArrayOp,
    attnums: dict[ColumnId, int],
    own: set[ColumnId],
    types: dict[int, int],
) -> ColumnCondition | None:
    column = without_relabel(condition.left)
    if not isinstance(column, tree.ColumnRef) or not condition.use_or:
        return None
    attnum = attnums.get(column.column)
    if attnum is None or attnum <= 0 or strategy_of(condition.proc) != EQUAL:
        return None
    array = condition.array
    if not _known(array, own) or not is_array(array.type):
        return None
    if not same_key(types[attnum], type_by_oid(array.type).element):
        return None
    return ColumnCondition(attnum, EQUAL, array, condition, many=True)


# ---------------------------------------------------------------- choosing


@dataclass(frozen=True, slots=True)
class Path:
    """An access with what it is expected to yield and to cost."""

    access: Access
    rows: float
    cost: float


def paths(
    scan: tree.Scan, conditions: Sequence[Expression], usable: Callable[[Index], bool]
) -> list[Path]:
    """Every way to read the table; the first reads all of it."""
    table = scan.table
    total = table_rows(table)
    space = IndexSpace(table, table.indexes[0])
    whole_spans = BUCKETS if space.kind == "hash" else 1
    found = [
        Path(Access(table.indexes[0], spans=whole_spans), total, total + whole_spans * SEEK_COST)
    ]
    about = column_conditions(scan, conditions)
    for index in table.indexes:
        if index.primary or (index.state == "public" and usable(index)):
            path = _index_path(table, index, about, total)
            if path is not None:
                found.append(path)
    return found


def best_path(
    scan: tree.Scan, conditions: Sequence[Expression], usable: Callable[[Index], bool]
) -> Path:
    """The cheapest way."""
    return min(paths(scan, conditions, usable), key=lambda path: path.cost)


def _index_path(
    table: Table, index: Index, about: list[ColumnCondition], total: float
) -> Path | None:
    equal: list[ColumnCondition] = []
    for part in index.columns:
        match = next(
            (c for c in about if c.attnum == part.column_id and c.strategy == EQUAL and not c.many),
            None,
        ) or next((c for c in about if c.attnum == part.column_id and c.strategy == EQUAL), None)
        if match is None or part.column_id == 0:
            break
        equal.append(match)
    low = high = None
    if len(equal) < len(index.columns):
        attnum = index.columns[len(equal)].column_id
        ranged = [c for c in about if c.attnum == attnum and c.strategy != EQUAL and attnum]
        low = next((c for c in ranged if c.strategy in (GREATER, GREATER_EQUAL)), None)
        high = next((c for c in ranged if c.strategy in (LESS, LESS_EQUAL)), None)
    space = IndexSpace(table, index)
    shard = _shard_values(space, about)
    if not equal and low is None and high is None:
        return None
    if space.kind == "colocated" and shard is None:
        return None
    return _path(table, index, space, equal, low, high, shard, total)


def _shard_values(
    space: IndexSpace, about: list[ColumnCondition]
) -> tuple[ColumnCondition, ...] | None:
    """The shard key's values, when the conditions give one for each of its columns."""
    if not space.shard_key:
        return None
    found = []
    for attnum in space.shard_key:
        match = next(
            (c for c in about if c.attnum == attnum and c.strategy == EQUAL and not c.many), None
        )
        if match is None:
            return None
        found.append(match)
    return tuple(found)


def _path(
    table: Table, index: Index, space: IndexSpace, equal: list[ColumnCondition],
    low: ColumnCondition | None, high: ColumnCondition | None,
    shard: tuple[ColumnCondition, ...] | None, total: float,
) -> Path:  # fmt: skip
    complete = len(equal) == len(index.columns)
    point = complete and index.unique
    combinations = 1.0
    for condition in equal:
        combinations *= _list_size(condition)
    spans = 1 if complete or space.kind != "hash" else BUCKETS
    if point:
        rows = combinations
    else:
        rows = (
            max(total * EQUAL_SHARE ** min(len(equal), 2) * combinations, 1.0) if equal else total
        )
        if low is not None or high is not None:
            rows = max(rows * RANGE_SHARE ** ((low is not None) + (high is not None)), 1.0)
    taken = [*equal, *(c for c in (low, high) if c is not None), *(shard or ())]
    access = Access(
        index=index,
        equal=tuple(Match(c.value, c.many) for c in equal),
        low=_bound(low, GREATER_EQUAL),
        high=_bound(high, LESS_EQUAL),
        shard=None if shard is None else tuple(c.value for c in shard),
        point=point,
        conditions=tuple(dict.fromkeys(c.condition for c in taken)),
        spans=spans,
    )
    seeks = combinations * (spans if not point else 1)
    cost = seeks * (1.0 if point and index.primary else SEEK_COST) + rows
    if not index.primary:
        cost += rows * FETCH_COST
    return Path(access, rows, cost)


def _bound(condition: ColumnCondition | None, inclusive: int) -> Bound | None:
    if condition is None:
        return None
    return Bound(condition.value, condition.strategy == inclusive)


def _list_size(condition: ColumnCondition) -> float:
    if not condition.many:
        return 1.0
    array: Any = condition.value
    return float(len(array.elements)) if isinstance(array, tree.ArrayExpr) else float(IN_LIST_SIZE)
