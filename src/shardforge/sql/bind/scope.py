"""Names in force: the columns and relations that an expression may use, level by level.

A `Scope` is one query level. Its namespace holds what FROM brought so far; its parent is the enclosing query. A
column is given its id when it is first used, so that a relation built afterwards yields only what is used. A
reference that crosses levels is noted in every scope that it leaves (`outer`).
Source: PostgreSQL 15, src/backend/parser/parse_relation.c (ParseNamespaceItem).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError, too_deep
from shardforge.sql.bind.environment import BindEnvironment
from shardforge.sql.bind.tree import (
    AggregateCall,
    ColumnId,
    ColumnRef,
    Const,
    Cte,
    Expression,
    Param,
    WindowCall,
)
from shardforge.sql.parse import char_position

if TYPE_CHECKING:
    from shardforge.sql.bind.ranges import RangeItem

Node = dict[str, Any]
Fields = tuple[tuple[str, int, int], ...]
"""The shape of a row value: (name, type, typmod) of each field."""


class Shared:
    """What all levels of one statement share: column ids, parameters, and where things stand in the text."""

    def __init__(self, env: BindEnvironment) -> None:
        self.env = env
        self.catalog = env.catalog
        self._next_column = 0
        self._next_cte = 0
        self.sites: dict[int, tuple[ColumnRef, int]] = {}
        """By id() of a ColumnRef: itself (so that the id stays its own) and its location."""
        self.untyped: dict[int, tuple[Param, int]] = {}
        """Parameters met whose type is not known yet, by id(), with their locations."""
        self.parameter_sites: dict[int, int] = {}
        self.literals: dict[int, tuple[Const, int]] = {}
        """Literals without a type yet, by id(), with their locations."""
        self.shapes: dict[ColumnId, Fields] = {}
        """Fields of columns whose values are anonymous rows."""
        self.silent = 0
        """Above 0 while stored text is bound: its locations mean nothing to the client."""

    def new_column(self) -> ColumnId:
        """A column id of this statement's own."""
        self._next_column += 1
        return ColumnId(self._next_column)

    def new_cte(self) -> int:
        """A number for a CTE."""
        self._next_cte += 1
        return self._next_cte

    def position(self, location: int | None) -> int:
        """The error position for a node's location."""
        if location is None or self.silent or not self.env.text:
            return 0
        return char_position(self.env.text, location)

    def error(
        self,
        message: str,
        sqlstate: str,
        location: int | None = None,
        *,
        detail: str = "",
        hint: str = "",
    ) -> QueryError:
        """An error at a place in the statement."""
        return QueryError(
            message, sqlstate, detail=detail, hint=hint, position=self.position(location)
        )

    def unsupported(self, what: str, location: int | None = None, *, hint: str = "") -> QueryError:
        """0A000 at a place in the statement."""
        return self.error(f"{what} is not supported", "0A000", location, hint=hint)

    def reference(
        self, column: ColumnId, type_oid: int, typmod: int, location: int | None
    ) -> ColumnRef:
        """A reference whose place is remembered."""
        made = ColumnRef(column, type_oid, typmod)
        if location is not None:
            self.sites[id(made)] = (made, location)
        return made

    def location_of(self, reference: ColumnRef) -> int | None:
        """Where a reference stands."""
        found = self.sites.get(id(reference))
        return None if found is None else found[1]


@dataclass(slots=True, eq=False)
class RangeColumn:
    """A column that a FROM item offers. `expression` is set for merged columns of JOIN USING."""

    name: str
    type: int
    typmod: int
    item: RangeItem
    table: int = 0
    attnum: int = 0
    id: ColumnId | None = None
    expression: Expression | None = None
    source: RangeColumn | None = None
    """The column that this one renames."""
    hidden: bool = False


@dataclass(slots=True, eq=False)
class Visible:
    """A namespace entry: a relation name, its columns, and which of the two can be used."""

    alias: str | None
    columns: Sequence[RangeColumn]
    item: RangeItem
    relation: bool = True
    unqualified: bool = True
    lateral_only: bool = False
    lateral_ok: bool = True


@dataclass(slots=True, eq=False)
class CteEntry:
    """A WITH query in force. `cte` is None while a recursive one's first part is still being bound."""

    number: int
    label: str
    names: tuple[str, ...] = ()
    types: tuple[tuple[int, int], ...] = ()
    columns: tuple[ColumnId, ...] = ()
    cte: Cte | None = None
    available: bool = True
    recursive_uses: int = 0
    used: bool = False
    problem: str = ""
    shapes: dict[int, Fields] = field(default_factory=dict)
    returns: bool = True


@dataclass(slots=True)
class WindowDefinition:
    """A window of this query, made unique by its parts, with the calls over it."""

    name: str | None
    partition_by: tuple[Expression, ...]
    order_by: tuple[Any, ...]
    frame: Any
    calls: list[tuple[ColumnId, WindowCall]] = field(default_factory=list)
    has_frame: bool = False


DEPTH_MAX = 256
"""Queries inside queries: planning takes time that grows with the square of the depth."""


class Scope:
    """One query level."""

    __slots__ = (
        "aggregates",
        "clause",
        "ctes",
        "depth",
        "grouping",
        "has_srf",
        "hidden",
        "lateral_active",
        "namespace",
        "outer",
        "own",
        "parent",
        "resolve_unknowns",
        "shared",
        "srf_forbidden",
        "targets_allow_srf",
        "windows",
    )

    def __init__(self, shared: Shared, parent: Scope | None = None) -> None:
        self.shared = shared
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        if self.depth > DEPTH_MAX:
            raise too_deep()
        self.namespace: list[Visible] = []
        self.own: dict[ColumnId, RangeColumn] = {}
        self.outer: dict[ColumnId, None] = {}
        self.clause = ""
        self.lateral_active = False
        self.aggregates: dict[ColumnId, AggregateCall] = {}
        self.windows: list[WindowDefinition] = []
        self.grouping: dict[ColumnId, tuple[Expression, ...]] = {}
        self.ctes: dict[str, CteEntry] = {}
        self.has_srf = False
        self.hidden: set[str] = set()
        """Names of FROM items that an aliased join hides."""
        self.targets_allow_srf = False
        self.srf_forbidden = ""
        self.resolve_unknowns = True

    def levels(self) -> Iterator[Scope]:
        """This scope and those around it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def leave(self, home: Scope, column: ColumnId) -> None:
        """Note a reference from here to a column of an enclosing scope."""
        scope = self
        while scope is not home:
            scope.outer[column] = None
            assert scope.parent is not None, "home encloses this scope"
            scope = scope.parent

    def find_cte(self, name: str) -> CteEntry | None:
        """The WITH query of that name in force here."""
        for scope in self.levels():
            entry = scope.ctes.get(name)
            if entry is not None:
                return entry
        return None

    def use(self, column: RangeColumn, home: Scope, location: int | None) -> Expression:
        """An expression for a column found in the namespace of `home`."""
        while column.source is not None:
            column = column.source
        expression = column.expression
        if expression is not None:
            for reference in _references(expression):
                self.leave(home, reference.column)
                if location is not None:
                    self.shared.sites[id(reference)] = (reference, location)
            return expression
        if column.id is None:
            column.id = self.shared.new_column()
            home.own[column.id] = column
            if column.item.shapes:
                shape = column.item.shapes.get(column.attnum)
                if shape is not None:
                    self.shared.shapes[column.id] = shape
        if home is not self:
            self.leave(home, column.id)
        return self.shared.reference(column.id, column.type, column.typmod, location)


def _references(value: Any) -> Iterator[ColumnRef]:
    from shardforge.sql.bind.walk import nodes

    return (node for node in nodes(value) if isinstance(node, ColumnRef))
