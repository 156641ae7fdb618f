"""The seam of catalog tables: their columns are data, their rows are functions.

`data/relations.tsv` holds PostgreSQL 15's own catalog relations with oid, kind and columns. A module of this package
gives one its rows with `@rows_of("pg_class")`: a function of the context that yields one dictionary per row; a
column that is not in it is NULL. A relation in `EMPTY` truly has no rows here; one that is in neither does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final

from shardforge.sql.catalog.descriptors import Column
from shardforge.sql.catalog.relations import VirtualContext, VirtualTable

Record = dict[str, Any]
Make = Callable[[VirtualContext], Iterable[Record]]

_MAKERS: Final[dict[tuple[str, str], Make]] = {}

EMPTY: Final = frozenset(
    {
        "pg_available_extensions", "pg_default_acl", "pg_event_trigger", "pg_foreign_data_wrapper",
        "pg_foreign_server", "pg_foreign_table", "pg_inherits", "pg_init_privs", "pg_largeobject_metadata",
        "pg_matviews", "pg_partitioned_table", "pg_policies", "pg_policy", "pg_prepared_xacts", "pg_publication",
        "pg_publication_namespace", "pg_publication_rel", "pg_publication_tables", "pg_replication_slots", "pg_rules",
        "pg_seclabel", "pg_seclabels", "pg_shdepend", "pg_shseclabel", "pg_stat_replication", "pg_statistic_ext",
        "pg_subscription", "pg_transform", "pg_trigger", "pg_user_mappings", "column_column_usage", "domains",
        "domain_constraints", "triggers", "user_defined_types",
    }
)  # fmt: skip


def rows_of(name: str, schema: str = "pg_catalog") -> Callable[[Make], Make]:
    """Register the function as the rows of a catalog table."""

    def register(make: Make) -> Make:
        assert (schema, name) not in _MAKERS, "a catalog table has one generator"
        _MAKERS[schema, name] = make
        return make

    return register


def lines_of(name: str) -> list[list[str]]:
    """The fields of a data file's lines."""
    text = files(__package__).joinpath("data", f"{name}.tsv").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()]


def _columns(text: str) -> tuple[Column, ...]:
    columns = []
    for number, part in enumerate(text.split(" "), start=1):
        name, type_oid, not_null = part.rsplit(":", 2)
        columns.append(Column(number, name, int(type_oid), not_null=not_null == "1"))
    return tuple(columns)


def _generator(make: Make, columns: tuple[Column, ...]) -> Any:
    names = [column.name for column in columns]

    def rows(ctx: VirtualContext) -> Iterator[tuple[Any, ...]]:
        for record in make(ctx):
            get = record.get
            yield tuple([get(name) for name in names])

    return rows


def _no_rows(ctx: VirtualContext) -> Iterable[Record]:
    return ()


@cache
def all_tables() -> dict[tuple[str, str], VirtualTable]:
    """Every catalog table that has a generator or is empty, by schema and name."""
    found = {}
    for schema, name, oid, kind, type_oid, columns_text in lines_of("relations"):
        make = _MAKERS.get((schema, name)) or (_no_rows if name in EMPTY else None)
        if make is not None:
            columns = _columns(columns_text)
            found[schema, name] = VirtualTable(
                int(oid), schema, name, columns, _generator(make, columns), kind, int(type_oid)
            )
    return found


def registered() -> dict[tuple[str, str], Make]:
    """The generators, for tests."""
    return _MAKERS
