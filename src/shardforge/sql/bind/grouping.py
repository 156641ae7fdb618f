"""GROUP BY: keys, grouping sets, and the rewriting of everything above to use them.

After grouping, an expression may use the group keys, aggregates, and columns that the keys determine (a table's
primary key determines its columns). `Regrouping` replaces the first two by their columns, adds the third as
further keys and refuses the rest. Source: PostgreSQL 15, src/backend/parser/parse_agg.c (parseCheckAggregates,
check_ungrouped_columns, expand_grouping_sets), parse_clause.c (transformGroupClause).
"""

from __future__ import annotations

import itertools
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any

from shardforge.sql.bind.scope import RangeColumn, Scope
from shardforge.sql.bind.tree import (
    Aggregate,
    Call,
    ColumnId,
    ColumnRef,
    Expression,
    ProjectSet,
    Relation,
    Subquery,
)
from shardforge.sql.bind.walk import EXPRESSIONS, nodes, references
from shardforge.sql.catalog.relations import VirtualTable

MAX_SETS = 4096


def same(a: Any, b: Any) -> bool:
    """Equality of expressions that tells 1.0 from 1.00."""
    return type(a) is type(b) and a == b and repr(a) == repr(b)


class Keys:
    """The distinct GROUP BY expressions, in order."""

    def __init__(self) -> None:
        self.expressions: list[Expression] = []

    def add(self, expression: Expression) -> int:
        """The offset of a key."""
        for offset, known in enumerate(self.expressions):
            if same(known, expression):
                return offset
        self.expressions.append(expression)
        return len(self.expressions) - 1


Set = tuple[int, ...]


def rollup(parts: list[Set]) -> list[Set]:
    """ROLLUP (a, b): (a, b), (a), ()"""
    return [tuple(itertools.chain(*parts[:n])) for n in range(len(parts), -1, -1)]


def cube(parts: list[Set]) -> list[Set]:
    """CUBE (a, b): every subset."""
    found = []
    for mask in range(2 ** len(parts) - 1, -1, -1):
        chosen = [part for i, part in enumerate(parts) if mask & (1 << (len(parts) - 1 - i))]
        found.append(tuple(itertools.chain(*chosen)))
    return found


def combine(items: list[list[Set]], *, distinct: bool) -> list[Set]:
    """The cross product of the GROUP BY items' sets, each without repeated keys."""
    sets = [tuple(dict.fromkeys(itertools.chain(*choice))) for choice in itertools.product(*items)]
    if distinct:
        unique: dict[frozenset[int], Set] = {}
        for each in sets:
            unique.setdefault(frozenset(each), each)
        sets = list(unique.values())
    return sets


class Regrouping:
    """Rewrites expressions over the rows before grouping to ones over the groups."""

    def __init__(self, scope: Scope, keys: list[Expression], sets: list[Set] | None) -> None:
        self.scope = scope
        self.keys = [(scope.shared.new_column(), key) for key in keys]
        self.sets = sets
        self._plain = {
            key.column: column for column, key in self.keys if isinstance(key, ColumnRef)
        }
        self._complex = [(c, key) for c, key in self.keys if not isinstance(key, ColumnRef)]
        self._extra: dict[ColumnId, ColumnId] = {}
        self._made: set[ColumnId] = {column for column, _ in self.keys}
        self._common = self._common_keys()
        self._kept = {c for window in scope.windows for c, _ in window.calls}
        self._kept |= scope.aggregates.keys() | scope.grouping.keys()
        self._depth = 0

    def _common_keys(self) -> set[ColumnId]:
        """Plain columns that are in every grouping set."""
        offsets = set(range(len(self.keys)))
        for each in self.sets or ():
            offsets &= set(each)
        found = set()
        for offset in offsets:
            key = self.keys[offset][1]
            if isinstance(key, ColumnRef):
                found.add(key.column)
        return found

    def apply(self, value: Any) -> Any:
        """`value` (an expression, or a tuple holding some) over the groups."""
        if isinstance(value, tuple):
            if not value:
                return value
            items = tuple(self.apply(item) for item in value)
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        if isinstance(value, ColumnRef):
            return self._reference(value)
        if not is_dataclass(value) or isinstance(value, (VirtualTable, type)):
            return value
        if isinstance(value, EXPRESSIONS):
            for column, key in self._complex:
                if same(key, value):
                    return ColumnRef(column, key.type, key.typmod)
        if isinstance(value, Subquery):
            return self._subquery(value)
        updates = {}
        for name in _names(type(value)):
            inner = getattr(value, name)
            if isinstance(inner, tuple) or is_dataclass(inner):
                changed = self.apply(inner)
                if changed is not inner:
                    updates[name] = changed
        return replace(value, **updates) if updates else value

    def _subquery(self, value: Subquery) -> Subquery:
        self._depth += 1
        query = self.apply(value.query)
        self._depth -= 1
        test = None if value.test is None else self.apply(value.test)
        if query is value.query and test is value.test:
            return value
        used = references(query)
        outer = [c for c in value.outer if c in used and c not in self.scope.own]
        outer += [c for c in sorted(used & self._made) if c not in outer]
        return replace(value, query=query, test=test, outer=tuple(outer))

    def _reference(self, reference: ColumnRef) -> ColumnRef:
        column = reference.column
        key = self._plain.get(column) or self._extra.get(column)
        if key is not None:
            return ColumnRef(key, reference.type, reference.typmod)
        if column in self._kept:
            return reference
        owned = self.scope.own.get(column)
        if owned is None:
            return reference
        if self._determined(owned):
            made = self.scope.shared.new_column()
            self._extra[column] = made
            self._made.add(made)
            self.keys.append((made, ColumnRef(column, reference.type, reference.typmod)))
            if self.sets is not None:
                offset = len(self.keys) - 1
                self.sets = [(*each, offset) for each in self.sets]
            return ColumnRef(made, reference.type, reference.typmod)
        name = owned.name if owned.item.alias is None else f"{owned.item.alias}.{owned.name}"
        if self._depth:
            message = f'subquery uses ungrouped column "{name}" from outer query'
        else:
            message = f'column "{name}" must appear in the GROUP BY clause or be used in an aggregate function'
        raise self.scope.shared.error(message, "42803", self.scope.shared.location_of(reference))

    def _determined(self, column: RangeColumn) -> bool:
        """Whether the keys hold the primary key of the column's table."""
        table = column.item.table
        if table is None or not table.indexes:
            return False
        primary = table.indexes[0]
        if not primary.primary:
            return False
        wanted = {part.column_id for part in primary.columns}
        held = {
            self.scope.own[c].attnum
            for c in self._common
            if c in self.scope.own and self.scope.own[c].item is column.item
        }
        return wanted <= held and not any(c.hidden and c.id in wanted for c in table.columns)

    def relation(self, below: Relation) -> Aggregate:
        """The Aggregate node; call it when all expressions have been rewritten."""
        scope = self.scope
        grouping = []
        for column, args in scope.grouping.items():
            grouping.append((column, tuple(self._offset(arg) for arg in args)))
        if any(_has_set(key) for _, key in self.keys):
            below = self._expand_keys(below)
        return Aggregate(
            below,
            tuple(self.keys),
            tuple(scope.aggregates.items()),
            None if self.sets is None else tuple(self.sets),
            tuple(grouping),
        )

    def _expand_keys(self, below: Relation) -> ProjectSet:
        """Keys that return sets are expanded below the grouping; what it needs besides is passed through."""
        outputs: list[tuple[ColumnId, Expression]] = []
        for position, (column, key) in enumerate(self.keys):
            if _has_set(key):
                made = self.scope.shared.new_column()
                outputs.append((made, key))
                self.keys[position] = (column, ColumnRef(made, key.type, key.typmod))
        passed = {
            part.column: part
            for part in nodes((self.keys, tuple(self.scope.aggregates.values())))
            if isinstance(part, ColumnRef) and part.column in self.scope.own
        }
        outputs += [(c, ColumnRef(c, part.type, part.typmod)) for c, part in passed.items()]
        return ProjectSet(below, tuple(outputs))

    def _offset(self, argument: Expression) -> int:
        for offset, (_, key) in enumerate(self.keys):
            if same(key, argument):
                return offset
        raise self.scope.shared.error(
            "arguments to GROUPING must be grouping expressions of the associated query level",
            "42803",
        )


def _has_set(expression: Expression) -> bool:
    return any(isinstance(part, Call) and part.retset for part in nodes(expression))


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))
