"""The bound tree: what a statement means, with every name resolved and every cast explicit.

Expressions carry their type oid and typmod. Columns are named by `ColumnId`s, unique within a statement:
each relational node says which columns it produces (`columns`), and an expression may use the columns of its
node's inputs, or, in a lateral or correlated position, of an enclosing query (then the id is free in the inner
tree and listed in the `outer` field of the node that crosses the boundary). Nothing here says how to execute.

Source: PostgreSQL 15, src/include/nodes/primnodes.h for the expression kinds; chapter 10 for resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NewType, TypeAlias

from shardforge.sql.catalog.descriptors import Index, Table
from shardforge.sql.catalog.relations import VirtualTable

ColumnId = NewType("ColumnId", int)

# ---------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Const:
    """A value known now."""

    value: Any
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Param:
    """`$n`: `index` counts from 0."""

    index: int
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """A column produced by an input node, or free (correlated)."""

    column: ColumnId
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Call:
    """A function, operator or function-cast: `proc` is its pg_proc oid. VARIADIC arguments are one array.

    `volatile` is pg_proc.provolatile ('i', 's', 'v'). `retset`: allowed only where a ProjectSet or
    FunctionScan expands it.
    """

    proc: int
    args: tuple[Expression, ...]
    type: int
    typmod: int = -1
    retset: bool = False
    volatile: str = "i"
    strict: bool = True
    name: str = ""
    columns: tuple[tuple[str, int, int], ...] = ()
    """The column definition list of a function returning record: (name, type, typmod)."""


@dataclass(frozen=True, slots=True)
class IoCast:
    """A cast by the source's output function and the target's input function."""

    arg: Expression
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Relabel:
    """A binary-coercible cast: the same value under another type."""

    arg: Expression
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class ArrayCast:
    """A cast element by element; `element` is an expression over `Placeholder` of the source's element."""

    arg: Expression
    element: Expression
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The current element inside `ArrayCast.element` (and CASE test values)."""

    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class LengthCoercion:
    """apply_typmod: varchar(n), numeric(p, s), timestamp(p) ... `explicit` truncates where a store would fail."""

    arg: Expression
    type: int
    typmod: int
    explicit: bool


@dataclass(frozen=True, slots=True)
class BoolOp:
    """'and', 'or' (two or more arguments), 'not' (one), in three-valued logic."""

    op: str
    args: tuple[Expression, ...]
    type: int = 16
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class NullTest:
    """IS [NOT] NULL; on rows, PostgreSQL's all-null / all-not-null rule when `row`."""

    arg: Expression
    negated: bool
    row: bool = False
    type: int = 16
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class BooleanTest:
    """IS [NOT] TRUE | FALSE | UNKNOWN: `test` is 'true', 'false' or 'unknown'."""

    arg: Expression
    test: str
    negated: bool
    type: int = 16
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class DistinctTest:
    """IS [NOT] DISTINCT FROM, by the equality function `proc`."""

    proc: int
    left: Expression
    right: Expression
    negated: bool
    type: int = 16
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Case:
    """Searched CASE (the simple form is bound to equality conditions)."""

    whens: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression | None
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The first argument that is not null."""

    args: tuple[Expression, ...]
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class MinMax:
    """GREATEST or LEAST, NULLs ignored, by the type's order."""

    greatest: bool
    args: tuple[Expression, ...]
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class NullIf:
    """NULLIF by the equality function `proc`; yields `left`'s original value."""

    proc: int
    left: Expression
    right: Expression
    original: Expression
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class ArrayExpr:
    """ARRAY[...]; `nested` when the elements are arrays of the result's element type."""

    elements: tuple[Expression, ...]
    type: int
    nested: bool = False
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class RowExpr:
    """ROW(...): a record; `names` as PostgreSQL names the fields."""

    args: tuple[Expression, ...]
    names: tuple[str, ...]
    type: int = 2249
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class FieldSelect:
    """(record).field: `offset` counts from 0."""

    arg: Expression
    offset: int
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Subscript:
    """array[i], array[i:j] or jsonb[key]. Each subscript is (lower, upper) with `is_slice`, else (None, index)."""

    arg: Expression
    subscripts: tuple[tuple[Expression | None, Expression | None], ...]
    is_slice: bool
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class SubscriptAssignment:
    """The array `arg` with `value` (an element, or an array with `is_slice`) put at `subscripts`.

    As PostgreSQL's array_set_element: NULL `arg` is an empty array, positions beyond the bounds extend a
    one-dimensional array with NULLs, and a NULL subscript is an error (22004).
    """

    arg: Expression
    subscripts: tuple[tuple[Expression | None, Expression | None], ...]
    is_slice: bool
    value: Expression
    type: int
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class ScalarArrayOp:
    """left op ANY|ALL (array), by the operator's function `proc`. IN (list) is bound to this over an ArrayExpr."""

    proc: int
    left: Expression
    array: Expression
    use_or: bool
    type: int = 16
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class RowCompare:
    """(a, b) < (c, d): `op` is one of < <= > >=; pairs carry (less proc, equal proc)."""

    op: str
    left: tuple[Expression, ...]
    right: tuple[Expression, ...]
    procs: tuple[tuple[int, int], ...]
    type: int = 16
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Subquery:
    """A subquery in an expression.

    kind 'scalar' | 'exists' | 'array' | 'any' | 'all' | 'row'. For any/all/row `test` is the comparison, over
    `ColumnRef`s of the subquery's output columns and of the enclosing query. `outer` lists the enclosing columns that
    the query uses (empty: run once a statement). Kind 'row' is `(a, b) = (SELECT ...)`: `test` over the one row, NULL
    when there is none, 21000 when there are several.
    """

    kind: str
    query: Query
    type: int
    test: Expression | None = None
    outer: tuple[ColumnId, ...] = ()
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """An aggregate in `Aggregate.calls`, or a window aggregate in `Window.calls`. `proc` is the pg_proc oid."""

    proc: int
    name: str
    args: tuple[Expression, ...]
    type: int
    distinct: bool = False
    order_by: tuple[SortKey, ...] = ()
    filter: Expression | None = None
    star: bool = False
    direct_args: tuple[Expression, ...] = ()
    """Ordered-set aggregates: the arguments before WITHIN GROUP."""
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class SortKey:
    """One ORDER BY key. Order is by the type's btree order, that is by `sort_key` of its oid."""

    expression: Expression
    descending: bool
    nulls_first: bool


Expression: TypeAlias = (
    Const
    | Param
    | ColumnRef
    | Call
    | IoCast
    | Relabel
    | ArrayCast
    | Placeholder
    | LengthCoercion
    | BoolOp
    | NullTest
    | BooleanTest
    | DistinctTest
    | Case
    | Coalesce
    | MinMax
    | NullIf
    | ArrayExpr
    | RowExpr
    | FieldSelect
    | Subscript
    | SubscriptAssignment
    | ScalarArrayOp
    | RowCompare
    | Subquery
)

# ---------------------------------------------------------------- relations


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows of a stored table. `columns` maps each column id to the table's column id (attnum); only those used.

    System columns: attnum 0 stands for the encoded primary row key (bytes), -6 for tableoid. `lock` asks for a row lock
    on each row that the whole query keeps.
    """

    table: Table
    alias: str
    columns: tuple[tuple[ColumnId, int], ...]


@dataclass(frozen=True, slots=True)
class VirtualScan:
    """Rows of a catalog table: `relation` is its qualified name, `table` makes its rows.

    Columns are by position, from 0; -6 stands for tableoid.
    """

    relation: str
    alias: str
    columns: tuple[tuple[ColumnId, int], ...]
    table: VirtualTable | None = None


@dataclass(frozen=True, slots=True)
class Values:
    """VALUES lists, or one empty row for a SELECT without FROM."""

    columns: tuple[ColumnId, ...]
    rows: tuple[tuple[Expression, ...], ...]


@dataclass(frozen=True, slots=True)
class FunctionScan:
    """Functions in FROM, side by side (ROWS FROM). A function with several output columns yields tuples."""

    functions: tuple[Expression, ...]
    columns: tuple[tuple[ColumnId, ...], ...]
    """The column ids of each function."""
    ordinality: ColumnId | None = None


@dataclass(frozen=True, slots=True)
class CteScan:
    """A reference to a CTE of an enclosing `With` (or to the working table of a recursive one)."""

    name: int
    """The CTE's number, unique in the statement."""
    columns: tuple[tuple[ColumnId, ColumnId], ...]
    """(this reference's id, the CTE's output id)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows for which `condition` is true."""

    input: Relation
    condition: Expression


@dataclass(frozen=True, slots=True)
class Project:
    """Computes `outputs`; passes nothing else on."""

    input: Relation
    outputs: tuple[tuple[ColumnId, Expression], ...]


@dataclass(frozen=True, slots=True)
class ProjectSet:
    """A select list with set-returning functions, run in lockstep, NULL-padded. Passes nothing else on."""

    input: Relation
    outputs: tuple[tuple[ColumnId, Expression], ...]


@dataclass(frozen=True, slots=True)
class Join:
    """kind 'inner' | 'left' | 'right' | 'full' | 'cross' | 'semi' | 'anti'.

    `lateral`: the right side uses columns of the left.
    """

    kind: str
    left: Relation
    right: Relation
    condition: Expression | None
    lateral: bool = False


@dataclass(frozen=True, slots=True)
class Aggregate:
    """GROUP BY and aggregates. `sets` are grouping sets, as offsets into `keys`; None is the one set of all keys.

    `grouping` lists GROUPING() calls: (column id, offsets into keys).
    """

    input: Relation
    keys: tuple[tuple[ColumnId, Expression], ...]
    calls: tuple[tuple[ColumnId, AggregateCall], ...]
    sets: tuple[tuple[int, ...], ...] | None = None
    grouping: tuple[tuple[ColumnId, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """A window frame.

    mode 'rows' | 'range' | 'groups'; bounds 'unbounded_preceding' | 'preceding' | 'current' | 'following' |
    'unbounded_following'; exclude '' | 'current row' | 'group' | 'ties'.
    """

    mode: str = "range"
    start: str = "unbounded_preceding"
    end: str = "current"
    start_offset: Expression | None = None
    end_offset: Expression | None = None
    exclude: str = ""


@dataclass(frozen=True, slots=True)
class WindowCall:
    """A window function or an aggregate used as one (`aggregate` set)."""

    proc: int
    name: str
    args: tuple[Expression, ...]
    type: int
    aggregate: AggregateCall | None = None
    filter: Expression | None = None
    typmod: int = -1


@dataclass(frozen=True, slots=True)
class Window:
    """Window functions over one partitioning and order; adds `calls` to the input's columns."""

    input: Relation
    partition_by: tuple[Expression, ...]
    order_by: tuple[SortKey, ...]
    frame: Frame
    calls: tuple[tuple[ColumnId, WindowCall], ...]


@dataclass(frozen=True, slots=True)
class Distinct:
    """DISTINCT over `on` (all output columns when empty); DISTINCT ON keeps the first in the input's order."""

    input: Relation
    on: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Sort:
    """ORDER BY, stable."""

    input: Relation
    keys: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """LIMIT/OFFSET; `with_ties` needs the Sort right below."""

    input: Relation
    limit: Expression | None
    offset: Expression | None
    with_ties: bool = False


@dataclass(frozen=True, slots=True)
class SetOperation:
    """UNION, INTERSECT, EXCEPT; the inputs' columns correspond by position and have equal types."""

    op: str
    all: bool
    left: Relation
    right: Relation
    left_columns: tuple[ColumnId, ...]
    right_columns: tuple[ColumnId, ...]
    columns: tuple[ColumnId, ...]
    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cte:
    """One WITH query. `recursive` is (base, step, union all?); the step reads the working table by a CteScan."""

    name: int
    label: str
    query: Relation | Insert | Update | Delete
    columns: tuple[ColumnId, ...]
    recursive: tuple[Relation, Relation, bool] | None = None
    types: tuple[int, ...] = ()
    step_columns: tuple[ColumnId, ...] = ()
    materialized: bool = False
    """AS MATERIALIZED: must not be merged into its user."""


@dataclass(frozen=True, slots=True)
class With:
    """CTEs, materialised once, visible in `body`. Data-modifying CTEs run to completion."""

    ctes: tuple[Cte, ...]
    body: Relation


@dataclass(frozen=True, slots=True)
class LockRows:
    """FOR UPDATE | NO KEY UPDATE | SHARE | KEY SHARE: `keys` are the row-key columns (attnum 0) to lock."""

    input: Relation
    keys: tuple[tuple[ColumnId, Table], ...]
    strength: int
    """0 key share, 1 share, 2 no key update, 3 update: txn.LockStrength."""
    policy: str
    """'block', 'error' (NOWAIT) or 'skip' (SKIP LOCKED)."""


Relation: TypeAlias = (
    Scan
    | VirtualScan
    | Values
    | FunctionScan
    | CteScan
    | Filter
    | Project
    | ProjectSet
    | Join
    | Aggregate
    | Window
    | Distinct
    | Sort
    | Limit
    | SetOperation
    | With
    | LockRows
)


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """A column that the client sees. `table` and `attnum` are 0 when it is not a plain column."""

    column: ColumnId
    name: str
    type: int
    typmod: int = -1
    table: int = 0
    attnum: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT or VALUES statement, or a subquery."""

    root: Relation
    outputs: tuple[OutputColumn, ...]


# ---------------------------------------------------------------- changes


@dataclass(frozen=True, slots=True)
class ConflictClause:
    """ON CONFLICT. `arbiters` empty: any unique index. `assignments` None: DO NOTHING.

    `existing` and `excluded` give the column ids that assignments and `where` use for the row in the table and
    the row proposed: attnum -> column id.
    """

    arbiters: tuple[Index, ...]
    assignments: tuple[tuple[int, Expression], ...] | None
    where: Expression | None
    existing: Mapping[int, ColumnId] = field(default_factory=dict)
    excluded: Mapping[int, ColumnId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Insert:
    """INSERT: `source` yields `source_columns`, one for each of `targets` (attnums), already cast.

    `defaults` holds an expression for each column not in `targets` that has one (generated ones are in `generated`,
    over `row` ids). RETURNING is over `row`: attnum -> column id of the stored row.
    """

    table: Table
    source: Relation
    source_columns: tuple[ColumnId, ...]
    targets: tuple[int, ...]
    defaults: tuple[tuple[int, Expression], ...]
    row: Mapping[int, ColumnId]
    generated: tuple[tuple[int, Expression], ...] = ()
    checks: tuple[tuple[str, Expression], ...] = ()
    """(constraint name, condition over `row`)."""
    index_expressions: Mapping[int, tuple[Expression | None, ...]] = field(default_factory=dict)
    """Index id -> its key expressions over `row` (None for plain columns)."""
    index_predicates: Mapping[int, Expression] = field(default_factory=dict)
    conflict: ConflictClause | None = None
    returning: tuple[OutputColumn, ...] | None = None
    returning_expressions: tuple[Expression, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE: `source` yields the rows to change: `key` (attnum 0), `old` (attnum -> column id, all stored columns),
    and whatever FROM brings; `assignments` are over those. A row met twice is changed once."""

    table: Table
    source: Relation
    key: ColumnId
    old: Mapping[int, ColumnId]
    assignments: tuple[tuple[int, Expression], ...]
    row: Mapping[int, ColumnId]
    generated: tuple[tuple[int, Expression], ...] = ()
    checks: tuple[tuple[str, Expression], ...] = ()
    index_expressions: Mapping[int, tuple[Expression | None, ...]] = field(default_factory=dict)
    index_predicates: Mapping[int, Expression] = field(default_factory=dict)
    returning: tuple[OutputColumn, ...] | None = None
    returning_expressions: tuple[Expression, ...] = ()
    """Over `row` (new values) and the source's other columns."""


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE: `source` yields `key` and `row` (attnum -> column id, all stored columns), and what USING brings."""

    table: Table
    source: Relation
    key: ColumnId
    row: Mapping[int, ColumnId]
    index_expressions: Mapping[int, tuple[Expression | None, ...]] = field(default_factory=dict)
    index_predicates: Mapping[int, Expression] = field(default_factory=dict)
    returning: tuple[OutputColumn, ...] | None = None
    returning_expressions: tuple[Expression, ...] = ()


BoundStatement: TypeAlias = Query | Insert | Update | Delete
"""A statement with data; a With of data-modifying CTEs is a Query whose root is a With. Sequences are reached by
functions (nextval), not by nodes."""
