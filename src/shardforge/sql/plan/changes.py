"""What changing a table takes: its constraints, the keys it has and the keys to it, with everything bound."""

from __future__ import annotations

from shardforge.sql.bind import BindEnvironment, bind_default, bind_table_expression, tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import ForeignKey, Index, Table
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.execute.rowwriter import StorageSettings
from shardforge.sql.plan.nodes import Referenced, Referencing, TableChange


class ChangePlanner:
    """Makes `TableChange`s for one statement; each table that a foreign key's actions may reach is bound once."""

    def __init__(self, catalog: CatalogSnapshot) -> None:
        self._catalog = catalog
        self._tables: dict[int, TableChange] = {}

    def of_statement(self, bound: tree.Insert | tree.Update | tree.Delete) -> TableChange:
        """The change that a statement makes; its expressions are already bound."""
        table = bound.table
        generated: tuple[tuple[int, Expression], ...] = ()
        checks: tuple[tuple[str, Expression], ...] = ()
        if not isinstance(bound, tree.Delete):
            generated, checks = bound.generated, bound.checks
        change = TableChange(
            table=table, schema=self._schema(table), row=dict(bound.row), generated=generated, checks=checks,
            index_expressions=dict(bound.index_expressions), index_predicates=dict(bound.index_predicates),
            references=self._references(table), referencing=[], defaults={},
        )  # fmt: skip
        if not isinstance(bound, tree.Insert) or bound.conflict is not None:
            change.referencing.extend(self._referencing(table))
        return change

    def of_table(self, table: Table) -> TableChange:
        """The change that a foreign key's action makes; expressions are bound over attnums."""
        found = self._tables.get(table.id)
        if found is not None:
            return found
        environment = BindEnvironment(
            catalog=self._catalog, search_path=("public",), settings=StorageSettings()
        )

        def bound(text: str) -> Expression:
            return bind_table_expression(text, table, environment)

        change = self._tables[table.id] = TableChange(
            table=table,
            schema=self._schema(table),
            row={attnum: ColumnId(attnum) for attnum, _ in table.layouts[-1]},
            generated=tuple(
                (c.id, bound(c.generated)) for c in table.columns if c.generated and not c.dropped
            ),
            checks=tuple((check.name, bound(check.expression)) for check in table.checks),
            index_expressions={
                index.id: tuple(
                    None if part.expression is None else bound(part.expression)
                    for part in index.columns
                )
                for index in table.indexes
            },
            index_predicates={
                index.id: bound(index.predicate)
                for index in table.indexes
                if index.predicate is not None
            },
            references=self._references(table),
            referencing=[],
            defaults={
                c.id: bind_default(c.default, c, environment)
                for c in table.columns
                if c.default is not None and not c.dropped
            },
        )
        change.referencing.extend(self._referencing(table))
        return change

    def _schema(self, table: Table) -> str:
        schema = self._catalog.schema_by_id(table.schema_id)
        return "" if schema is None else schema.name

    def _references(self, table: Table) -> tuple[Referenced, ...]:
        found = []
        for key in table.foreign_keys:
            target = self._catalog.table_by_id(key.target)
            assert target is not None, "a table that is referred to cannot be dropped alone"
            found.append(Referenced(key, target, _unique_index(target, key)))
        return tuple(found)

    def _referencing(self, table: Table) -> list[Referencing]:
        found = []
        for oid in table.referenced_by:
            source = self._catalog.table_by_id(oid)
            if source is None:
                continue
            for key in source.foreign_keys:
                if key.target == table.id:
                    index = _index_on(source, key)
                    found.append(Referencing(key, source, index, self.of_table(source)))
        return found


def _unique_index(target: Table, key: ForeignKey) -> Index:
    wanted = set(key.target_columns)
    return next(
        index
        for index in target.indexes
        if index.unique and {part.column_id for part in index.columns} == wanted
    )


def _index_on(source: Table, key: ForeignKey) -> Index | None:
    """An index whose first columns are the key's, in any order."""
    wanted = set(key.columns)
    shard = set(source.sharding.shard_key)
    for index in source.indexes:
        leading = {part.column_id for part in index.columns[: len(wanted)]}
        if (
            leading == wanted
            and index.state == "public"
            and index.predicate is None
            and shard <= wanted
        ):
            return index
    return None
