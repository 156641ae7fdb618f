"""Functions about the catalog's objects: names to oids, definitions, descriptions, visibility, sizes, privileges.

`context.catalog` answers, by these methods (oids are ints; None means SQL's NULL):
regclass_in(text), regclass_out(oid) and the same for regtype, regnamespace, regrole, regproc; table_is_visible(oid);
get_expr(text, relation, pretty); get_constraintdef(oid, pretty); get_indexdef(oid, column, pretty);
get_viewdef(oid, pretty); get_userbyid(oid); get_serial_sequence(table, column); obj_description(oid, catalog);
col_description(oid, column); shobj_description(oid, catalog); relation_size(oid), indexes_size(oid),
total_relation_size(oid), database_size(oid or name); current_schemas(implicit); nextval(oid), currval(oid), lastval(),
setval(oid, value, called). Every role may do everything: has_*_privilege is true of what exists.
Source: PostgreSQL 15, chapter 9.26 of the manual and src/backend/utils/adt/{ruleutils,regproc,acl}.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.errors import QueryError
from shardforge.keys import ENUM_OIDS
from shardforge.sql import pgdata
from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.types.integers import regproc_named
from shardforge.sql.types.registry import find_type

# ---------------------------------------------------------------- names to oids


@implements("text_regclass", context=True)
def text_regclass(context: EvalContext, name: str) -> int:
    """A relation's oid; 42P01 when there is none."""
    return int(context.catalog.regclass_in(name))


_ABSENT = ("42P01", "42704", "42883", "3F000", "42725")


def _or_null(method: str) -> Callable[[EvalContext, str], int | None]:
    def look_up(context: EvalContext, name: str) -> int | None:
        try:
            return int(getattr(context.catalog, method)(name))
        except QueryError as error:
            if error.sqlstate in _ABSENT:
                return None
            raise

    return look_up


for _kind in ("regclass", "regtype", "regnamespace", "regrole"):
    implements(f"to_{_kind}", context=True)(_or_null(f"{_kind}_in"))


@implements("to_regproc")
def to_regproc(name: str) -> int | None:
    """The one function with this name, or NULL."""
    try:
        return regproc_named(name)
    except QueryError:
        return None


# ---------------------------------------------------------------- visibility


@implements("pg_table_is_visible", context=True)
def pg_table_is_visible(context: EvalContext, oid: int) -> bool | None:
    """Whether the bare name finds this relation."""
    answer: bool | None = context.catalog.table_is_visible(oid)
    return answer


@implements("pg_type_is_visible", context=True)
def pg_type_is_visible(context: EvalContext, oid: int) -> bool | None:
    """Whether the bare name finds this type; a row type is as visible as its relation."""
    if find_type(oid) is not None and oid not in ENUM_OIDS:
        return True
    answer = getattr(context.catalog, "type_is_visible", None)
    return None if answer is None else answer(oid)


implements("pg_function_is_visible")(lambda oid: True if pgdata.proc_by_oid(oid) else None)
implements("pg_operator_is_visible")(lambda oid: True if pgdata.operator_by_oid(oid) else None)
implements(
    "pg_opclass_is_visible", "pg_opfamily_is_visible", "pg_collation_is_visible", "pg_conversion_is_visible",
    "pg_statistics_obj_is_visible", "pg_ts_config_is_visible", "pg_ts_dict_is_visible", "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
)(lambda oid: True)  # fmt: skip

# ---------------------------------------------------------------- definitions


def _from_catalog(method: str, *extra: Any) -> Callable[..., Any]:
    """Ask the catalog's method with the arguments, then `extra` for what the call leaves out."""

    def ask(context: EvalContext, *args: Any) -> Any:
        return getattr(context.catalog, method)(*args, *extra)

    return ask


def _register(source: str, method: str, *extra: Any) -> None:
    implements(source, context=True)(_from_catalog(method, *extra))


_register("pg_get_expr", "get_expr", False)
_register("pg_get_expr_ext", "get_expr")
_register("pg_get_constraintdef", "get_constraintdef", False)
_register("pg_get_constraintdef_ext", "get_constraintdef")
_register("pg_get_indexdef", "get_indexdef", 0, False)
_register("pg_get_indexdef_ext", "get_indexdef")
_register("pg_get_viewdef", "get_viewdef", False)
_register("pg_get_viewdef_ext", "get_viewdef")
_register("pg_get_userbyid", "get_userbyid")
_register("pg_get_serial_sequence", "get_serial_sequence")


def _viewdef_by_name(context: EvalContext, name: str, pretty: bool = False) -> Any:
    return context.catalog.get_viewdef(context.catalog.regclass_in(name), pretty)


implements("pg_get_viewdef_name", "pg_get_viewdef_name_ext", context=True)(_viewdef_by_name)
implements("pg_get_viewdef_wrap", context=True)(
    lambda context, oid, columns: context.catalog.get_viewdef(oid, True)
)
implements(
    "pg_get_partkeydef", "pg_get_triggerdef", "pg_get_ruledef", "pg_get_statisticsobjdef_columns"
)(lambda oid: None)
implements("pg_get_triggerdef_ext", "pg_get_ruledef_ext")(lambda oid, pretty: None)
implements("pg_relation_is_publishable")(lambda oid: False)
implements("pg_partition_ancestors", "pg_partition_tree")(lambda oid: ())  # nothing is partitioned

# ---------------------------------------------------------------- descriptions


_register("obj_description(oid,name)", "obj_description")
_register("obj_description(oid)", "obj_description", None)
_register("col_description(oid,integer)", "col_description")
_register("shobj_description(oid,name)", "shobj_description")

# ---------------------------------------------------------------- sequences


_register("nextval_oid", "nextval")
_register("currval_oid", "currval")
_register("lastval", "lastval")
_register("setval_oid", "setval", True)
_register("setval3_oid", "setval")

# ---------------------------------------------------------------- sizes


_register("pg_relation_size(regclass)", "relation_size")
_register("pg_table_size", "relation_size")
_register("pg_indexes_size", "indexes_size")
_register("pg_total_relation_size", "total_relation_size")
_register("pg_database_size_oid", "database_size")
_register("pg_database_size_name", "database_size")


@implements("pg_relation_size", context=True)
def pg_relation_size_fork(context: EvalContext, oid: int, fork: str) -> Any:
    """Only the main fork holds anything."""
    if fork == "main":
        return context.catalog.relation_size(oid)
    if fork in ("fsm", "vm", "init"):
        return 0
    raise QueryError(
        "invalid fork name", "22023", hint='Valid fork names are "main", "fsm", "vm", and "init".'
    )


# ---------------------------------------------------------------- privileges


def _table_privilege(position: int) -> Callable[..., bool]:
    def check(context: EvalContext, *args: Any) -> bool:
        context.catalog.regclass_in(args[position])
        return True

    return check


def _granted(*args: Any) -> bool:
    del args
    return True


for _kind in ("table", "sequence"):
    implements(f"has_{_kind}_privilege_name", context=True)(_table_privilege(0))
    implements(f"has_{_kind}_privilege_name_name", f"has_{_kind}_privilege_id_name", context=True)(
        _table_privilege(1)
    )
    implements(
        f"has_{_kind}_privilege_id",
        f"has_{_kind}_privilege_name_id",
        f"has_{_kind}_privilege_id_id",
    )(_granted)
for _kind in ("schema", "database", "function", "language", "type", "tablespace"):
    for _suffix in ("name", "id", "name_name", "name_id", "id_name", "id_id"):
        implements(f"has_{_kind}_privilege_{_suffix}")(_granted)
for _suffix in ("name", "id", "name_name", "name_id", "id_name", "id_id"):
    implements(f"has_any_column_privilege_{_suffix}", f"pg_has_role_{_suffix}")(_granted)
for _suffix in ("name_name", "name_attnum", "id_name", "id_attnum"):
    implements(f"has_column_privilege_{_suffix}")(_granted)
    for _role in ("name", "id"):
        implements(f"has_column_privilege_{_role}_{_suffix}")(_granted)
