"""The plan: what will be done, node by node.

A node says which columns its rows have (`columns`), how many there may be (`rows`), and in which order they come
(`order`, empty when in none). `execute.compiler` makes operators of it, `explain` text. A node that is a candidate for
the vector path will be replaced as a whole by one that names its inputs, which is why a node knows nothing of its
parent and all its expressions are over its inputs' columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import ForeignKey, Index, Table
from shardforge.sql.catalog.relations import VirtualTable


class Ordering(NamedTuple):
    """Rows come by this column."""

    column: ColumnId
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a plan."""

    columns: tuple[ColumnId, ...]
    rows: float
    order: tuple[Ordering, ...] = ()


# ---------------------------------------------------------------- access to tables


class Match(NamedTuple):
    """A key column equals a value, or (`many`) one of the elements of an array."""

    expression: Expression
    many: bool = False


class Bound(NamedTuple):
    """One end of a range."""

    expression: Expression
    inclusive: bool


@dataclass(frozen=True, slots=True)
class Access:
    """Which part of which index is read: its first columns equal `equal`, the next one lies between the bounds.

    `point`: each combination of values is one key. `shard`: the shard key's values, where known. `merged`: the spans of
    a hash index are merged, so that rows come in index order. `conditions` are what the access takes care of.
    """

    index: Index
    equal: tuple[Match, ...] = ()
    low: Bound | None = None
    high: Bound | None = None
    shard: tuple[Expression, ...] | None = None
    point: bool = False
    merged: bool = False
    reverse: bool = False
    conditions: tuple[Expression, ...] = ()
    spans: int = 1
    """Seeks that it takes."""

    @property
    def whole(self) -> bool:
        """Whether everything is read."""
        return not self.equal and self.low is None and self.high is None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableScan(Node):
    """Rows of a table; `attnums` say what its columns are. Values in the access are over enclosing columns."""

    table: Table
    alias: str
    attnums: tuple[int, ...]
    access: Access
    condition: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualTableScan(Node):
    """Rows of a catalog table; `positions` are its columns'."""

    relation: str
    alias: str
    table: VirtualTable
    positions: tuple[int, ...]
    condition: Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesScan(Node):
    """VALUES, or one empty row."""

    lists: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionScan(Node):
    """Set-returning functions side by side."""

    functions: tuple[Expression, ...]
    widths: tuple[int, ...]
    ordinality: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CteScan(Node):
    """Rows of a CTE, or of the working table of a recursive one; `positions` are offsets in its rows."""

    name: int
    label: str
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRows(Node):
    """Rows that the operator above already has (RETURNING with subqueries)."""


# ---------------------------------------------------------------- rows one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter(Node):
    """Rows for which the condition is true."""

    input: Node
    condition: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(Node):
    """The outputs, computed."""

    input: Node
    outputs: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSet(Node):
    """The outputs, of which some are set-returning functions."""

    input: Node
    outputs: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply(Node):
    """A column more: a subquery's value for each row. `outer` are the columns that the subquery takes."""

    input: Node
    plan: Node
    kind: str
    test: Expression | None
    outer: tuple[ColumnId, ...]
    lazy: bool
    element_type: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Materialize(Node):
    """Keeps the input's rows the first time, and gives them again each further time."""

    input: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRows(Node):
    """Locks each row's keys before passing it on."""

    input: Node
    keys: tuple[ColumnId, ...]
    tables: tuple[str, ...]
    strength: int
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit(Node):
    """LIMIT and OFFSET."""

    input: Node
    limit: Expression | None
    offset: Expression | None
    ties: tuple[tree.SortKey, ...] = ()


# ---------------------------------------------------------------- joins


@dataclass(frozen=True, slots=True, kw_only=True)
class HashJoin(Node):
    """inner, left, full, semi or anti join by equal keys: the right side is kept in a hash table."""

    kind: str
    left: Node
    right: Node
    left_keys: tuple[Expression, ...]
    right_keys: tuple[Expression, ...]
    condition: Expression | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedLoop(Node):
    """Any join by any condition. With `lateral` the right side is run for each row of the left."""

    kind: str
    left: Node
    right: Node
    condition: Expression | None
    lateral: tuple[ColumnId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexJoin(Node):
    """inner, left, semi or anti join by look-ups in an index: `scan.access` is over the left's columns."""

    kind: str
    left: Node
    scan: TableScan
    condition: Expression | None


# ---------------------------------------------------------------- many rows at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(Node):
    """Grouping and aggregates, by hashing."""

    input: Node
    keys: tuple[Expression, ...]
    calls: tuple[tree.AggregateCall, ...]
    sets: tuple[tuple[int, ...], ...] | None
    grouping: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window(Node):
    """Window functions over one partitioning and order."""

    input: Node
    partition_by: tuple[Expression, ...]
    order_by: tuple[tree.SortKey, ...]
    frame: tree.Frame
    calls: tuple[tree.WindowCall, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort(Node):
    """ORDER BY; `top` is set when no more than that many rows are wanted."""

    input: Node
    keys: tuple[tree.SortKey, ...]
    top: tuple[Expression | None, Expression | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distinct(Node):
    """The first row of each distinct key (all columns when there is none)."""

    input: Node
    on: tuple[Expression, ...]
    types: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Append(Node):
    """One input after the other, columns by position."""

    inputs: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOperation(Node):
    """UNION DISTINCT, INTERSECT and EXCEPT [ALL]."""

    op: str
    all: bool
    left: Node
    right: Node
    types: tuple[int, ...]


class CtePlan(NamedTuple):
    """One WITH query: its plan, or the base and the step of a recursive one."""

    name: int
    label: str
    plan: Node
    step: Node | None = None
    union_all: bool = False
    types: tuple[int, ...] = ()
    modifies: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class With(Node):
    """CTEs, each kept as rows, and the query that uses them."""

    ctes: tuple[CtePlan, ...]
    body: Node


# ---------------------------------------------------------------- changes


@dataclass(frozen=True, slots=True)
class Referenced:
    """A foreign key of a changed table, and the index of the other table that has the keys."""

    key: ForeignKey
    target: Table
    index: Index


@dataclass(frozen=True, slots=True)
class Referencing:
    """A foreign key of another table to a changed one, and the index that finds its rows (None: read them all).

    `change` is how that table is changed by the key's actions.
    """

    key: ForeignKey
    source: Table
    index: Index | None
    change: TableChange


@dataclass(frozen=True, slots=True)
class TableChange:
    """What changing a table's rows takes, expressions over column ids `row` (attnum -> id)."""

    table: Table
    schema: str
    row: dict[int, ColumnId]
    generated: tuple[tuple[int, Expression], ...]
    checks: tuple[tuple[str, Expression], ...]
    index_expressions: dict[int, tuple[Expression | None, ...]]
    index_predicates: dict[int, Expression]
    references: tuple[Referenced, ...]
    referencing: list[Referencing]
    """Filled after all tables of a cycle are known."""
    defaults: dict[int, Expression]


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert(Node):
    """INSERT; `returning` is a plan over GivenRows when it has subqueries."""

    statement: tree.Insert
    source: Node
    change: TableChange
    returning: Node | None
    given: tuple[ColumnId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(Node):
    """UPDATE."""

    statement: tree.Update
    source: Node
    change: TableChange
    returning: Node | None
    given: tuple[ColumnId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(Node):
    """DELETE."""

    statement: tree.Delete
    source: Node
    change: TableChange
    returning: Node | None
    given: tuple[ColumnId, ...] = ()


Modification = Insert | Update | Delete


def children(node: Any) -> tuple[Node, ...]:
    """The nodes right below, in the order of EXPLAIN."""
    match node:
        case Apply(input=inner, plan=plan):
            return (inner, plan)
        case HashJoin(left=left, right=right) | NestedLoop(left=left, right=right):
            return (left, right)
        case SetOperation(left=left, right=right):
            return (left, right)
        case IndexJoin(left=left, scan=scan):
            return (left, scan)
        case Append(inputs=inputs):
            return inputs
        case With(ctes=ctes, body=body):
            plans = [plan for cte in ctes for plan in (cte.plan, cte.step) if plan is not None]
            return (*plans, body)
        case Insert(source=source) | Update(source=source) | Delete(source=source):
            return (source,)
    below: Node | None = getattr(node, "input", None)
    return () if below is None else (below,)
