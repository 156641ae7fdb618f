"""The bound tree's changes: INSERT, UPDATE and DELETE, with what is stored, checked, indexed and returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from shardforge.sql.bind.tree.expressions import ColumnId, Expression
from shardforge.sql.bind.tree.relations import OutputColumn, Query, Relation
from shardforge.sql.catalog.descriptors import Index, Table


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
