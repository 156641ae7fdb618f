"""Physical nodes: what the planner puts in place of scans and joins. The other nodes of a plan are the bound tree's own.

The vector path will be one more node here: a subtree that runs as one query over Arrow batches, chosen by a rule
when every expression in it has been proven equal; see `plan.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import Index, Table


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """Rows by full unique keys: each of `keys` has an expression per index column. `filter` is tested on the rows found.

    `any_of`: instead, the last column of the only key is any element of this array expression.
    """

    table: Table
    alias: str
    columns: tuple[tuple[ColumnId, int], ...]
    index: Index
    keys: tuple[tuple[Expression, ...], ...]
    any_of: Expression | None = None
    filter: Expression | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range of the first column after the equal ones."""

    expression: Expression
    inclusive: bool


@dataclass(frozen=True, slots=True)
class SpanAccess:
    """Rows of an index (or of the table, by its primary index) whose first columns equal `equal`, within bounds.

    A hash-sharded index is read from one bucket when `equal` covers its columns, else from all, merged when `ordered`.
    """

    table: Table
    alias: str
    columns: tuple[tuple[ColumnId, int], ...]
    index: Index
    equal: tuple[Expression, ...] = ()
    lower: Bound | None = None
    upper: Bound | None = None
    filter: Expression | None = None
    reverse: bool = False
    limit: Expression | None = None
    """At most this many rows are of use (a LIMIT above, nothing in between)."""


@dataclass(frozen=True, slots=True)
class HashJoin:
    """An equi-join: `right` is kept in memory by its keys. `condition` is what else must hold."""

    kind: str
    left: Physical
    right: Physical
    left_keys: tuple[Expression, ...]
    right_keys: tuple[Expression, ...]
    condition: Expression | None


@dataclass(frozen=True, slots=True)
class LookupJoin:
    """A join that asks `inner` (an access with keys over the left's columns) for each left row, while those are few;
    past `LOOKUPS_MAX` left rows it goes on as `hash`, when there is one."""

    kind: str
    left: Physical
    inner: Physical
    condition: Expression | None
    hash: HashJoin | None


@dataclass(frozen=True, slots=True)
class NestedLoop:
    """Any other join: `right` in memory, or run anew for each left row when `lateral`."""

    kind: str
    left: Physical
    right: Physical
    condition: Expression | None
    lateral: bool


@dataclass(frozen=True, slots=True)
class TopN:
    """Sort and Limit in one: keeps no more rows than it may return."""

    input: Physical
    keys: tuple[tree.SortKey, ...]
    limit: Expression
    offset: Expression | None


@dataclass(frozen=True, slots=True)
class Apply:
    """Runs subqueries for each row of `input` and appends their values as columns.

    `guard`: a subquery runs only for rows where this holds (it stood in a conjunct behind that condition).
    """

    input: Physical
    subqueries: tuple[tuple[ColumnId, tree.Subquery, Physical], ...]


Physical: TypeAlias = (
    tree.Relation | KeyAccess | SpanAccess | HashJoin | LookupJoin | NestedLoop | TopN | Apply
)
