"""What CREATE TABLE and ALTER TABLE ADD COLUMN ask for: column and constraint clauses, collected from parse nodes.

Nothing is resolved against the catalog here except types. Column constraints become table constraints over one
column, as PostgreSQL does. Source: PostgreSQL 15, src/backend/parser/parse_utilcmd.c (transformColumnDefinition).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardforge.errors import QueryError, unsupported
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import checked_name, position_of, strings
from shardforge.sql.ddl.types import column_type, serial_type


@dataclass(slots=True)
class ColumnDefinition:
    """One column as written. `serial`: made by a serial type; `identity`: 'a', 'd' or ''."""

    name: str
    type_oid: int
    typmod: int
    not_null: bool = False
    default: Node | None = None
    default_text: str | None = None
    """A default that is known as text already (LIKE)."""
    serial: bool = False
    identity: str = ""
    identity_options: list[Node] = field(default_factory=list)
    generated: Node | None = None
    generated_text: str | None = None
    collation: str = ""
    comment: str | None = None


@dataclass(slots=True)
class KeyDefinition:
    """PRIMARY KEY or UNIQUE as written; `using_index` names an existing index instead of columns."""

    name: str | None
    primary: bool
    columns: list[str]
    include: list[str]
    using_index: str | None = None
    options: list[Node] = field(default_factory=list)
    deferrable: bool = False
    initially_deferred: bool = False


@dataclass(slots=True)
class CheckDefinition:
    """CHECK as written. `column`: the column whose constraint it is, for its name."""

    name: str | None
    expression: Node | None
    column: str | None = None
    validated: bool = True
    text: str | None = None


@dataclass(slots=True)
class ForeignKeyDefinition:
    """FOREIGN KEY as written; no `target_columns`: the target's primary key."""

    name: str | None
    columns: list[str]
    target: Node
    target_columns: list[str]
    on_delete: str
    on_update: str
    match_full: bool
    deferrable: bool = False
    initially_deferred: bool = False
    validated: bool = True


@dataclass(slots=True)
class Definition:
    """All clauses of a CREATE TABLE, or of an added column."""

    columns: list[ColumnDefinition] = field(default_factory=list)
    keys: list[KeyDefinition] = field(default_factory=list)
    checks: list[CheckDefinition] = field(default_factory=list)
    foreign_keys: list[ForeignKeyDefinition] = field(default_factory=list)


_REFUSED = {
    "CONSTR_EXCLUSION": "EXCLUDE constraints",
}


def read_column(ddl: Ddl, node: Node, table: str, into: Definition) -> ColumnDefinition:
    """Collect a ColumnDef with its constraints into the definition."""
    name = checked_name(node["colname"])
    if node.get("collClause"):
        _check_collation(node["collClause"])
    if node.get("compression") or node.get("storage_name"):
        raise unsupported("STORAGE and COMPRESSION of a column")
    serial = serial_type(node["typeName"])
    if serial:
        type_oid, typmod = serial, -1
    else:
        type_oid, typmod = column_type(ddl, node["typeName"], name)
    column = ColumnDefinition(name, type_oid, typmod, serial=bool(serial), not_null=bool(serial))
    into.columns.append(column)
    _Constraints(table, column, into, nullability=True if serial else None).read(
        [item["Constraint"] for item in node.get("constraints", [])]
    )
    return column


def _check_collation(node: Node) -> None:
    names = strings(node["collname"])
    if names[-1] not in ("C", "POSIX", "default", "ucs_basic"):
        raise QueryError(
            f'collation "{names[-1]}" for encoding "UTF8" does not exist', "42704",
            position=position_of(node),
        )  # fmt: skip


class _Constraints:
    """The constraints of one column."""

    def __init__(
        self, table: str, column: ColumnDefinition, into: Definition, *, nullability: bool | None
    ) -> None:
        self.table = table
        self.column = column
        self.into = into
        self.nullability = nullability
        self.last: KeyDefinition | ForeignKeyDefinition | None = None

    def read(self, nodes: list[Node]) -> None:
        """Collect every constraint of the column."""
        for node in nodes:
            self._one(node)
        self._check_combination()

    def _one(self, node: Node) -> None:
        column = self.column
        kind = node["contype"]
        if kind == "CONSTR_NULL":
            self._set_nullability(False, node)
        elif kind == "CONSTR_NOTNULL":
            self._set_nullability(True, node)
        elif kind == "CONSTR_DEFAULT":
            if column.default is not None:
                raise self._error("multiple default values specified", node)
            column.default = node["raw_expr"]
        elif kind == "CONSTR_IDENTITY":
            if column.identity:
                raise self._error("multiple identity specifications", node)
            if column.type_oid not in (20, 21, 23):
                raise QueryError(
                    "identity column type must be smallint, integer, or bigint", "22023"
                )
            column.identity = node["generated_when"]
            column.identity_options = node.get("options", [])
            self._set_nullability(True, node)
        elif kind == "CONSTR_GENERATED":
            if column.generated is not None:
                raise self._error("multiple generation clauses specified", node)
            if node.get("generated_kind", "s") != "s":
                raise unsupported("a VIRTUAL generated column")
            column.generated = node["raw_expr"]
        elif kind in ("CONSTR_ATTR_DEFERRABLE", "CONSTR_ATTR_NOT_DEFERRABLE",
                      "CONSTR_ATTR_DEFERRED", "CONSTR_ATTR_IMMEDIATE"):  # fmt: skip
            self._attribute(kind, node)
        else:
            self.last = read_constraint(node, self.into, column=column.name)

    def _set_nullability(self, not_null: bool, node: Node) -> None:
        if self.nullability is not None and self.nullability is not not_null:
            raise self._error("conflicting NULL/NOT NULL declarations", node)
        self.nullability = self.column.not_null = not_null

    def _attribute(self, kind: str, node: Node) -> None:
        if self.last is None:
            word = {
                "CONSTR_ATTR_DEFERRABLE": "DEFERRABLE",
                "CONSTR_ATTR_NOT_DEFERRABLE": "NOT DEFERRABLE",
                "CONSTR_ATTR_DEFERRED": "INITIALLY DEFERRED",
            }.get(kind, "INITIALLY IMMEDIATE")
            raise QueryError(f"misplaced {word} clause", "42601", position=position_of(node))
        if kind == "CONSTR_ATTR_DEFERRABLE":
            self.last.deferrable = True
        elif kind == "CONSTR_ATTR_DEFERRED":
            self.last.deferrable = self.last.initially_deferred = True

    def _check_combination(self) -> None:
        column = self.column
        has_default = column.default is not None or column.serial
        if column.serial and column.default is not None:
            raise self._error("multiple default values specified", {})
        if has_default and column.identity:
            raise self._error("both default and identity specified", {})
        if has_default and column.generated is not None:
            raise self._error("both default and generation expression specified", {})
        if column.identity and column.generated is not None:
            raise self._error("both identity and generation expression specified", {})

    def _error(self, what: str, node: Node) -> QueryError:
        return QueryError(
            f'{what} for column "{self.column.name}" of table "{self.table}"',
            "42601",
            position=position_of(node),
        )


def read_constraint(
    node: Node, into: Definition, *, column: str | None = None
) -> KeyDefinition | ForeignKeyDefinition | None:
    """Collect a table constraint (or a column's, over `column`) into the definition."""
    kind = node["contype"]
    name = node.get("conname")
    deferrable, deferred = bool(node.get("deferrable")), bool(node.get("initdeferred"))
    own = [column] if column is not None else []
    if kind in ("CONSTR_PRIMARY", "CONSTR_UNIQUE"):
        if node.get("nulls_not_distinct"):
            raise unsupported("UNIQUE NULLS NOT DISTINCT")
        if node.get("without_overlaps"):
            raise unsupported("WITHOUT OVERLAPS")
        key = KeyDefinition(
            name, kind == "CONSTR_PRIMARY", own or strings(node.get("keys", [])),
            strings(node.get("including", [])), node.get("indexname"), node.get("options", []),
            deferrable, deferred,
        )  # fmt: skip
        into.keys.append(key)
        return key
    if kind == "CONSTR_CHECK":
        into.checks.append(
            CheckDefinition(name, node["raw_expr"], column, not node.get("skip_validation"))
        )
        return None
    if kind == "CONSTR_FOREIGN":
        if node.get("fk_del_set_cols"):
            raise unsupported("ON DELETE SET NULL or SET DEFAULT with a column list")
        if node.get("fk_matchtype", "s") == "p":
            raise QueryError("MATCH PARTIAL not yet implemented", "0A000")
        foreign_key = ForeignKeyDefinition(
            name, own or strings(node["fk_attrs"]), node["pktable"], strings(node.get("pk_attrs", [])),
            node.get("fk_del_action", "a"), node.get("fk_upd_action", "a"),
            node.get("fk_matchtype", "s") == "f", deferrable, deferred, not node.get("skip_validation"),
        )  # fmt: skip
        into.foreign_keys.append(foreign_key)
        return foreign_key
    raise unsupported(_REFUSED.get(kind, f"constraint {kind.removeprefix('CONSTR_')}"))
