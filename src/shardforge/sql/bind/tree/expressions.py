"""The bound tree's expressions: values over columns, parameters and subqueries, each with its type oid and typmod.

Source: PostgreSQL 15, src/include/nodes/primnodes.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NewType, TypeAlias

if TYPE_CHECKING:
    from shardforge.sql.bind.tree.relations import Query

ColumnId = NewType("ColumnId", int)


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
