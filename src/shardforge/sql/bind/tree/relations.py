"""The bound tree's relations: what yields rows, from scans to whole queries. Each says which columns it produces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from shardforge.sql.bind.tree.expressions import AggregateCall, ColumnId, Expression, SortKey
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.catalog.relations import VirtualTable

if TYPE_CHECKING:
    from shardforge.sql.bind.tree.changes import Delete, Insert, Update


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
