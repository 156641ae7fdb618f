"""A catalog for binder tests, made from CREATE statements without a database.

Understands what the tests need: columns with types, NOT NULL, DEFAULT, identity, generated columns, primary keys,
UNIQUE, CHECK, indexes and views.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shardforge.ids import TableId
from shardforge.sql.bind import BindEnvironment, bind_statement, resolve_type_name
from shardforge.sql.bind.tree import BoundStatement, Query
from shardforge.sql.catalog.descriptors import (
    Check,
    Column,
    Database,
    Index,
    IndexColumn,
    Schema,
    Sequence,
    Sharding,
    Table,
    View,
)
from shardforge.sql.catalog.snapshot import SYSTEM_SCHEMAS, CatalogSnapshot
from shardforge.sql.catalog.virtual import virtual_tables
from shardforge.sql.parse import deparse_expression, deparse_statement, parse

PUBLIC = 2200


@dataclass
class Settings:
    """What input functions read."""

    timezone: str = "UTC"
    datestyle: str = "ISO, MDY"
    intervalstyle: str = "postgres"
    extra_float_digits: int = 1
    bytea_output: str = "hex"


class Builder:
    """Collects relations; each CREATE sees those before it."""

    def __init__(self) -> None:
        self.relations: dict[int, Any] = {}
        self._next = 16384

    def oid(self) -> int:
        self._next += 1
        return self._next

    def snapshot(self) -> CatalogSnapshot:
        schemas = {oid: Schema(oid, name, 5) for name, oid in SYSTEM_SCHEMAS.items()}
        schemas[PUBLIC] = Schema(PUBLIC, "public", 5)
        return CatalogSnapshot(
            Database(5, "postgres"), relations=self.relations, schemas=schemas, databases={},
            roles={}, enums={}, virtual=virtual_tables(),
        )  # fmt: skip

    def environment(self, text: str) -> BindEnvironment:
        return environment(self.snapshot(), text)

    def run(self, script: str) -> None:
        for statement in parse(script):
            ((kind, node),) = statement.node.items()
            getattr(self, kind)(node, statement.text)

    def CreateStmt(self, node: dict[str, Any], text: str) -> None:  # noqa: N802
        oid = self.oid()
        columns: list[Column] = []
        indexes: list[Index] = []
        checks: list[Check] = []
        name = node["relation"]["relname"]
        for item in node["tableElts"]:
            if "ColumnDef" in item:
                columns.append(self._column(oid, item["ColumnDef"], len(columns) + 1))
                constraints = item["ColumnDef"].get("constraints", [])
                keys = [item["ColumnDef"]["colname"]]
            else:
                constraints, keys = [item], []
            for each in constraints:
                constraint = each["Constraint"]
                kind = constraint["contype"]
                if kind in ("CONSTR_PRIMARY", "CONSTR_UNIQUE"):
                    names = [k["String"]["sval"] for k in constraint.get("keys", [])] or keys
                    ids = [c.id for n in names for c in columns if c.name == n]
                    primary = kind == "CONSTR_PRIMARY"
                    label = f"{name}_pkey" if primary else f"{name}_{'_'.join(names)}_key"
                    indexes.append(
                        Index(
                            TableId(self.oid()), constraint.get("conname", label), len(indexes) + 1,
                            tuple(IndexColumn(i) for i in ids), unique=True, primary=primary, constraint=True,
                        )
                    )  # fmt: skip
                elif kind == "CONSTR_CHECK":
                    label = constraint.get("conname", f"{name}_check")
                    checks.append(
                        Check(self.oid(), label, deparse_expression(constraint["raw_expr"]))
                    )
        indexes.sort(key=lambda index: not index.primary)
        self.relations[oid] = Table(
            TableId(oid), name, PUBLIC, tuple(columns), tuple(indexes), Sharding("hash"), (),
            checks=tuple(checks), type_oid=self.oid(),
        )  # fmt: skip

    def _column(self, table: int, node: dict[str, Any], attnum: int) -> Column:
        env = self.environment("")
        oid, typmod = resolve_type_name(node["typeName"], env)
        options: dict[str, Any] = {}
        for each in node.get("constraints", []):
            constraint = each["Constraint"]
            kind = constraint["contype"]
            if kind in ("CONSTR_NOTNULL", "CONSTR_PRIMARY"):
                options["not_null"] = True
            elif kind == "CONSTR_DEFAULT":
                options["default"] = deparse_expression(constraint["raw_expr"])
            elif kind == "CONSTR_GENERATED":
                options["generated"] = deparse_expression(constraint["raw_expr"])
            elif kind == "CONSTR_IDENTITY":
                options["identity"] = constraint["generated_when"]
                sequence = self.oid()
                self.relations[sequence] = Sequence(
                    TableId(sequence), f"seq{sequence}", PUBLIC, owned_by=(table, attnum), identity=True
                )  # fmt: skip
        return Column(attnum, node["colname"], oid, typmod, **options)

    def IndexStmt(self, node: dict[str, Any], text: str) -> None:  # noqa: N802
        table = next(t for t in self.relations.values() if t.name == node["relation"]["relname"])
        keys = []
        for item in node["indexParams"]:
            element = item["IndexElem"]
            if "name" in element:
                column = next(c for c in table.columns if c.name == element["name"])
                keys.append(IndexColumn(column.id))
            else:
                keys.append(IndexColumn(0, deparse_expression(element["expr"])))
        predicate = node.get("whereClause")
        index = Index(
            TableId(self.oid()), node["idxname"], len(table.indexes) + 1, tuple(keys),
            unique=bool(node.get("unique")),
            predicate=None if predicate is None else deparse_expression(predicate),
        )  # fmt: skip
        self.relations[table.id] = _with_index(table, index)

    def ViewStmt(self, node: dict[str, Any], text: str) -> None:  # noqa: N802
        oid = self.oid()
        query = deparse_statement(node["query"])
        bound = bind_statement(parse(query)[0].node, self.environment(query))
        assert isinstance(bound, Query)
        columns = tuple(Column(i, o.name, o.type, o.typmod) for i, o in enumerate(bound.outputs, 1))
        self.relations[oid] = View(
            TableId(oid), node["view"]["relname"], PUBLIC, query, columns, type_oid=self.oid()
        )

    def CreateSeqStmt(self, node: dict[str, Any], text: str) -> None:  # noqa: N802
        oid = self.oid()
        self.relations[oid] = Sequence(TableId(oid), node["sequence"]["relname"], PUBLIC)


def _with_index(table: Table, index: Index) -> Table:
    from msgspec.structs import replace

    return replace(table, indexes=(*table.indexes, index))


def environment(
    catalog: CatalogSnapshot, text: str, types: list[int | None] | None = None
) -> BindEnvironment:
    """What a session would bind with."""
    return BindEnvironment(
        catalog=catalog, search_path=("public",), settings=Settings(), parameter_types=types or [], text=text
    )  # fmt: skip


@dataclass
class Bound:
    """A statement bound against a catalog, with the parameter types that were inferred."""

    tree: BoundStatement
    parameters: list[int | None] = field(default_factory=list)


def bind(catalog: CatalogSnapshot, text: str, types: list[int | None] | None = None) -> Bound:
    """The one statement of `text`."""
    (statement,) = parse(text)
    env = environment(catalog, statement.text, types)
    return Bound(bind_statement(statement.node, env), env.parameter_types)


def catalog_of(script: str) -> CatalogSnapshot:
    """The catalog after a script of CREATE statements."""
    builder = Builder()
    builder.run(script)
    return builder.snapshot()
