"""FROM items: what each offers to the namespace, and the relation that it becomes once its used columns are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from shardforge.sql.bind.scope import Fields, RangeColumn, Shared
from shardforge.sql.bind.tree import (
    ColumnId,
    CteScan,
    FunctionScan,
    Join,
    Query,
    Relation,
    Scan,
    VirtualScan,
)
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.catalog.relations import VirtualTable
from shardforge.sql.types import oids

ROW_KEY = 0
"""The attnum that stands for the encoded primary row key."""


class RangeItem(ABC):
    """A FROM item. `build` is called once, when no further column of it can be asked for."""

    __slots__ = (
        "alias",
        "aliased",
        "columns",
        "lateral",
        "nullable",
        "relation_id",
        "relation_name",
        "row_type",
        "scalar",
        "shapes",
        "system",
        "table",
    )

    def __init__(self, alias: str | None) -> None:
        self.alias = alias
        self.aliased = False
        """Whether the alias is the statement's own rather than the relation's name."""
        self.columns: Sequence[RangeColumn] = ()
        self.relation_id = 0
        self.relation_name = alias
        self.row_type = 0
        self.table: Table | None = None
        self.nullable = False
        """On the nullable side of an outer join."""
        self.scalar: RangeColumn | None = None
        """The one column of a function that returns no row: the item's name means it."""
        self.shapes: dict[int, Fields] = {}
        """By attnum: fields of columns that are anonymous rows."""
        self.system: dict[int, RangeColumn] = {}
        self.lateral = False
        """May use columns of the items to its left."""

    def system_column(self, name: str, attnum: int, type_oid: int) -> RangeColumn:
        """A column that * does not show."""
        found = self.system.get(attnum)
        if found is None:
            found = self.system[attnum] = RangeColumn(
                name, type_oid, -1, self, self.relation_id, attnum, hidden=True
            )
        return found

    def key_column(self) -> RangeColumn:
        """The row key of a stored table."""
        return self.system_column("(key)", ROW_KEY, oids.BYTEA)

    def used(self) -> tuple[tuple[ColumnId, int], ...]:
        """(column id, attnum) of every column that has been asked for."""
        found = [(c.id, c.attnum) for c in self.columns if c.id is not None and c.source is None]
        if self.system:
            found += [(c.id, c.attnum) for c in self.system.values() if c.id is not None]
        return tuple(found)

    @abstractmethod
    def build(self) -> Relation:
        """The relation."""


class TableItem(RangeItem):
    """A stored table."""

    __slots__ = ()

    def __init__(self, table: Table, alias: str) -> None:
        super().__init__(alias)
        self.table = table
        self.relation_id = table.id
        self.relation_name = table.name
        self.row_type = table.type_oid
        self.columns = [
            RangeColumn(c.name, c.type_oid, c.typmod, self, table.id, c.id, hidden=c.hidden)
            for c in table.columns
            if not c.dropped
        ]

    def build(self) -> Relation:
        assert self.table is not None
        return Scan(self.table, self.alias or "", self.used())


class VirtualItem(RangeItem):
    """A catalog table; its columns go by position, from 0."""

    __slots__ = ("virtual",)

    def __init__(self, virtual: VirtualTable, alias: str) -> None:
        super().__init__(alias)
        self.virtual = virtual
        self.relation_id = virtual.id
        self.relation_name = virtual.name
        self.row_type = virtual.type_oid
        self.columns = [
            RangeColumn(c.name, c.type_oid, c.typmod, self, virtual.id, c.id)
            for c in virtual.columns
        ]

    def build(self) -> Relation:
        columns = tuple(
            (column.id, position)
            for position, column in enumerate(self.columns)
            if column.id is not None
        )
        name = f"{self.virtual.schema}.{self.virtual.name}"
        tableoid = self.system.get(-6)
        if tableoid is not None and tableoid.id is not None:
            columns = (*columns, (tableoid.id, -6))
        return VirtualScan(name, self.alias or "", columns, self.virtual)


class SubqueryItem(RangeItem):
    """A subquery or view: its columns are the query's outputs, under their own ids."""

    __slots__ = ("query",)

    def __init__(self, shared: Shared, query: Query, alias: str | None) -> None:
        super().__init__(alias)
        self.query = query
        self.columns = [
            RangeColumn(o.name, o.type, o.typmod, self, o.table, o.attnum, o.column)
            for o in query.outputs
        ]

    def build(self) -> Relation:
        return self.query.root


class CteItem(RangeItem):
    """A reference to a WITH query. Every column gets an id of this reference's own."""

    __slots__ = ("number", "pairs")

    def __init__(
        self,
        shared: Shared,
        number: int,
        alias: str,
        names: Sequence[str],
        types: Sequence[tuple[int, int]],
        columns: Sequence[ColumnId],
    ) -> None:
        super().__init__(alias)
        self.number = number
        self.columns = [
            RangeColumn(name, type_oid, typmod, self, 0, position, shared.new_column())
            for position, (name, (type_oid, typmod)) in enumerate(zip(names, types, strict=True), 1)
        ]
        self.pairs = tuple(
            (own.id, theirs)
            for own, theirs in zip(self.columns, columns, strict=True)
            if own.id is not None
        )

    def build(self) -> Relation:
        return CteScan(self.number, self.pairs)


class FunctionItem(RangeItem):
    """Functions in FROM. All columns have ids from the start."""

    __slots__ = ("make",)

    def __init__(self, alias: str, make: Callable[[], FunctionScan]) -> None:
        super().__init__(alias)
        self.make = make

    def build(self) -> Relation:
        return self.make()


class RelationItem(RangeItem):
    """A relation that is complete already, such as VALUES."""

    __slots__ = ("relation",)

    def __init__(self, alias: str | None, relation: Relation) -> None:
        super().__init__(alias)
        self.relation = relation

    def build(self) -> Relation:
        return self.relation


class JoinItem(RangeItem):
    """A join of two items; `finish` makes the node from the built sides."""

    __slots__ = ("finish", "left", "right")

    def __init__(
        self,
        alias: str | None,
        left: RangeItem,
        right: RangeItem,
        finish: Callable[[Relation, Relation], Join],
    ) -> None:
        super().__init__(alias)
        self.left = left
        self.right = right
        self.finish = finish

    def build(self) -> Relation:
        return self.finish(self.left.build(), self.right.build())
