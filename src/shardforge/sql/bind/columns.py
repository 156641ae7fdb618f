"""Column references: names to columns, whole rows, fields, and what to say when there is no such name.

Source: PostgreSQL 15, src/backend/parser/parse_expr.c (transformColumnRef), parse_relation.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from shardforge.errors import QueryError
from shardforge.sql.bind.casts import field_of, type_name
from shardforge.sql.bind.dispatch import bind, binds, location_of
from shardforge.sql.bind.ranges import RangeItem, VirtualItem
from shardforge.sql.bind.rows import fields_of
from shardforge.sql.bind.scope import Node, RangeColumn, Scope, Visible
from shardforge.sql.bind.subscripts import subscript
from shardforge.sql.bind.tree import Case, Expression, NullTest, RowExpr
from shardforge.sql.types import oids

_SYSTEM = {"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}


def names_of(fields: list[Node]) -> list[str]:
    """The names of a ColumnRef's fields; '*' for a star."""
    return [f["String"].get("sval", "") if "String" in f else "*" for f in fields]


@binds("ColumnRef")
def _bind_column_ref(scope: Scope, node: Node) -> Expression:
    fields = node["fields"]
    location = node.get("location", 0)
    if len(fields) == 1:
        first = fields[0]
        if "String" not in first:
            raise _star_misplaced(scope, location)
        return _bare(scope, first["String"].get("sval", ""), location)
    names = names_of(fields)
    if names[-1] == "*":
        found, _ = resolve_qualifier(scope, names, location)
        if found is None:
            raise missing_relation(scope, names[-2], location)
        return whole_row(scope, *found, location)
    return _qualified(scope, names, location)


def _star_misplaced(scope: Scope, location: int | None) -> QueryError:
    return scope.shared.error('row expansion via "*" is not supported here', "0A000", location)


def _bare(scope: Scope, name: str, location: int) -> Expression:
    if scope.clause in _NO_COLUMNS:
        raise scope.shared.error(_NO_COLUMNS[scope.clause], "0A000", location)
    found = find_column(scope, name, location)
    if found is not None:
        return found
    row = find_relation(scope, None, name, location)
    if row is not None:
        home, visible = row
        return whole_row(scope, home, visible, location)
    raise missing_column(scope, name, location)


_NO_COLUMNS = {
    "default": "cannot use column reference in DEFAULT expression",
    "parameter": "cannot use column references here",
}


def find_column(scope: Scope, name: str, location: int | None) -> Expression | None:
    """The column that an unqualified name means; None when there is none. Raises 42702."""
    for level in scope.levels():
        found: RangeColumn | None = None
        for visible in level.namespace:
            if not visible.unqualified or (visible.lateral_only and not level.lateral_active):
                continue
            for column in visible.columns:
                if column.name == name and not column.hidden:
                    if found is not None:
                        raise scope.shared.error(
                            f'column reference "{name}" is ambiguous', "42702", location
                        )
                    _check_lateral(scope, visible, location)
                    found = column
        if found is not None:
            return scope.use(found, level, location)
    if name in _SYSTEM:
        return _system_column(scope, name, location)
    return None


def _system_column(scope: Scope, name: str, location: int | None) -> Expression | None:
    tables = [
        (level, visible)
        for level in scope.levels()
        for visible in level.namespace
        if visible.unqualified and visible.relation and _is_stored(visible.item)
    ]
    if not tables:
        return None
    level, visible = tables[0]
    if len([v for home, v in tables if home is level]) > 1:
        raise scope.shared.error(f'column reference "{name}" is ambiguous', "42702", location)
    return _system_of(scope, level, visible.item, name, location)


def _is_stored(item: RangeItem) -> bool:
    """Whether the item is a table, a catalog table included: such have system columns."""
    return item.table is not None or isinstance(item, VirtualItem)


def _system_of(
    scope: Scope, home: Scope, item: RangeItem, name: str, location: int | None
) -> Expression:
    if name != "tableoid":
        raise scope.shared.unsupported(f"system column {name}", location)
    return scope.use(item.system_column("tableoid", -6, oids.OID), home, location)


def _check_lateral(scope: Scope, visible: Visible, location: int | None) -> None:
    if visible.lateral_only and not visible.lateral_ok:
        raise scope.shared.error(
            f'invalid reference to FROM-clause entry for table "{visible.alias}"', "42P10", location,
            detail="The combining JOIN type must be INNER or LEFT for a LATERAL reference.",
        )  # fmt: skip


def find_relation(
    scope: Scope, schema: str | None, name: str, location: int | None
) -> tuple[Scope, Visible] | None:
    """The FROM item that a relation name means. Raises 42P09."""
    wanted = 0
    if schema is not None:
        try:
            relation = scope.shared.catalog.relation(schema, name, scope.shared.env.search_path)
        except QueryError:
            return None
        if relation is None:
            return None
        wanted = relation.id
    for level in scope.levels():
        found: Visible | None = None
        for visible in level.namespace:
            if not visible.relation or visible.alias != name:
                continue
            if visible.lateral_only and not level.lateral_active:
                continue
            if schema is not None and (visible.item.relation_id != wanted or visible.item.aliased):
                continue
            if found is not None:
                raise scope.shared.error(
                    f'table reference "{name}" is ambiguous', "42P09", location
                )
            _check_lateral(scope, visible, location)
            found = visible
        if found is not None:
            return level, found
    return None


def column_of(
    scope: Scope, home: Scope, visible: Visible, name: str, location: int | None
) -> Expression | None:
    """A named column of one FROM item."""
    found: RangeColumn | None = None
    for column in visible.columns:
        if column.name == name and not column.hidden:
            if found is not None:
                raise scope.shared.error(
                    f'column reference "{name}" is ambiguous', "42702", location
                )
            found = column
    if found is not None:
        return scope.use(found, home, location)
    if name in _SYSTEM and _is_stored(visible.item):
        return _system_of(scope, home, visible.item, name, location)
    return None


def _qualified(scope: Scope, names: list[str], location: int) -> Expression:
    if scope.clause in _NO_COLUMNS:
        raise scope.shared.error(_NO_COLUMNS[scope.clause], "0A000", location)
    found, column = resolve_qualifier(scope, names, location)
    if found is not None:
        home, visible = found
        expression = column_of(scope, home, visible, column, location)
        if expression is not None:
            return expression
        return _as_function(scope, home, visible, names, column, location)
    raise missing_relation(scope, names[-2], location)


def _as_function(
    scope: Scope, home: Scope, visible: Visible, names: list[str], column: str, location: int
) -> Expression:
    shown = ".".join([visible.alias or names[-2], column])
    raise scope.shared.error(f"column {shown} does not exist", "42703", location)


def resolve_qualifier(
    scope: Scope, names: list[str], location: int
) -> tuple[tuple[Scope, Visible] | None, str]:
    """The FROM item that all but the last of `names` mean, and the last name."""
    *qualifier, column = names
    if len(qualifier) == 3:
        if qualifier[0] != scope.shared.catalog.database.name:
            raise scope.shared.error(
                f"cross-database references are not implemented: {'.'.join(names)}",
                "0A000",
                location,
            )
        qualifier = qualifier[1:]
    if len(qualifier) > 2:
        raise scope.shared.error(
            f"improper qualified name (too many dotted names): {'.'.join(names)}", "42601", location
        )
    schema = qualifier[0] if len(qualifier) == 2 else None
    return find_relation(scope, schema, qualifier[-1], location), column


def select_field(scope: Scope, base: Expression, name: str, location: int | None) -> Expression:
    """(base).name"""
    shape = fields_of(scope.shared, base)
    if shape is not None:
        for offset, (own, type_oid, typmod) in enumerate(shape):
            if own == name:
                return field_of(base, offset, type_oid, typmod)
        if base.type == oids.RECORD:
            raise scope.shared.error(
                f'could not identify column "{name}" in record data type', "42703", location
            )
        raise scope.shared.error(
            f'column "{name}" not found in data type {type_name(scope, base.type)}',
            "42703",
            location,
        )
    if base.type == oids.RECORD:
        raise scope.shared.error(
            f'could not identify column "{name}" in record data type', "42703", location
        )
    raise scope.shared.error(
        f"column notation .{name} applied to type {type_name(scope, base.type)}, "
        "which is not a composite type",
        "42809",
        location,
    )


def whole_row(scope: Scope, home: Scope, visible: Visible, location: int | None) -> Expression:
    """A FROM item's row as one value; NULL where an outer join found no row."""
    item = visible.item
    if item.scalar is not None:
        return scope.use(item.scalar, home, location)
    columns = [c for c in visible.columns if not c.hidden]
    row = RowExpr(
        tuple(scope.use(column, home, location) for column in columns),
        tuple(column.name for column in columns),
        item.row_type or oids.RECORD,
    )
    if not item.nullable:
        return row
    if item.table is None:
        raise scope.shared.unsupported(
            "a whole-row reference to the nullable side of an outer join", location
        )
    key = scope.use(item.key_column(), home, location)
    return Case(((NullTest(key, negated=True), row),), None, row.type)


def expand_star(scope: Scope, names: list[str], location: int) -> Iterator[tuple[str, Expression]]:
    """The columns of `*` or `qualifier.*`, with their names."""
    if len(names) == 1:
        found = False
        for visible in scope.namespace:
            if not visible.unqualified:
                continue
            _check_lateral_star(scope, visible)
            found = True
            yield from _all_columns(scope, scope, visible, location)
        if not found:
            raise scope.shared.error(
                "SELECT * with no tables specified is not valid", "42601", location
            )
        return
    row, _ = resolve_qualifier(scope, names, location)
    if row is not None:
        home, visible = row
        yield from _all_columns(scope, home, visible, location)
        return
    raise missing_relation(scope, names[-2], location)


def _check_lateral_star(scope: Scope, visible: Visible) -> None:
    assert not visible.lateral_only or scope.lateral_active, "FROM is complete"


def _all_columns(
    scope: Scope, home: Scope, visible: Visible, location: int
) -> Iterator[tuple[str, Expression]]:
    for column in visible.columns:
        if not column.hidden:
            yield column.name, scope.use(column, home, location)


def expand_row(
    scope: Scope, base: Expression, location: int | None
) -> Iterator[tuple[str, Expression]]:
    """The fields of a row value: (base).*"""
    shape = fields_of(scope.shared, base)
    if shape is None:
        if base.type == oids.RECORD:
            raise scope.shared.error("record type has not been registered", "42809", location)
        raise scope.shared.error(
            f"type {type_name(scope, base.type)} is not composite", "42809", location
        )
    for offset, (name, type_oid, typmod) in enumerate(shape):
        yield name, field_of(base, offset, type_oid, typmod)


@binds("A_Indirection")
def _bind_indirection(scope: Scope, node: Node) -> Expression:
    base = bind(scope, node["arg"])
    location = location_of(node["arg"])
    pending: list[Node] = []
    for step in node["indirection"]:
        if "A_Indices" in step:
            pending.append(step["A_Indices"])
            continue
        if pending:
            base = subscript(scope, base, pending, location)
            pending = []
        if "A_Star" in step:
            raise _star_misplaced(scope, None)
        name = step["String"].get("sval", "")
        row = node["arg"].get("ColumnRef")
        if row is not None and isinstance(base, (RowExpr, Case)) and base.type != oids.RECORD:
            shape = fields_of(scope.shared, base) or ()
            if name not in [own for own, _, _ in shape]:
                shown = f"{names_of(row['fields'])[-1]}.{name}"
                raise scope.shared.error(f"column {shown} does not exist", "42703", location)
        base = select_field(scope, base, name, location)
    return subscript(scope, base, pending, location) if pending else base


# ---------------------------------------------------------------- what is missing


def missing_column(scope: Scope, name: str, location: int | None) -> QueryError:
    """42703 with a hint when a like-named column is somewhere else."""
    hint = ""
    detail = ""
    for level in scope.levels():
        for visible in level.namespace:
            hidden = visible.lateral_only and not level.lateral_active
            if hidden and visible.alias and any(c.name == name for c in visible.columns):
                detail = (
                    f'There is a column named "{name}" in table "{visible.alias}", but it cannot be '
                    "referenced from this part of the query."
                )
    if not detail:
        close = _closest(scope, name)
        if close:
            hint = f'Perhaps you meant to reference the column "{close}".'
    return scope.shared.error(
        f'column "{name}" does not exist', "42703", location, detail=detail, hint=hint
    )


def _closest(scope: Scope, name: str) -> str:
    """The one most similar column, as `alias.name`; '' when none is near, or several are."""
    best: list[str] = []
    limit = max(len(name) // 2, 0)
    nearest = limit + 1
    for level in scope.levels():
        for visible in level.namespace:
            if not visible.relation or not visible.alias:
                continue
            for column in visible.columns:
                if column.hidden:
                    continue
                distance = _distance(name, column.name, nearest)
                if distance < nearest:
                    nearest, best = distance, [f"{visible.alias}.{column.name}"]
                elif distance == nearest and distance <= limit:
                    best.append(f"{visible.alias}.{column.name}")
    return best[0] if len(best) == 1 else ""


def _distance(a: str, b: str, limit: int) -> int:
    """Levenshtein distance, at least right when it is below `limit`."""
    if abs(len(a) - len(b)) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def _hidden(scope: Scope, name: str, location: int | None) -> QueryError:
    return scope.shared.error(
        f'invalid reference to FROM-clause entry for table "{name}"', "42P01", location,
        hint=f'There is an entry for table "{name}", but it cannot be referenced from this part of the query.',
    )  # fmt: skip


def missing_relation(scope: Scope, name: str, location: int | None) -> QueryError:
    """42P01 for a qualifier that names nothing in FROM."""
    for level in scope.levels():
        for visible in level.namespace:
            item = visible.item
            if item.relation_name == name and visible.alias != name and visible.relation:
                return scope.shared.error(
                    f'invalid reference to FROM-clause entry for table "{name}"', "42P01", location,
                    hint=f'Perhaps you meant to reference the table alias "{visible.alias}".',
                )  # fmt: skip
            if visible.alias == name:
                return _hidden(scope, name, location)
        if name in level.hidden:
            return _hidden(scope, name, location)
    return scope.shared.error(f'missing FROM-clause entry for table "{name}"', "42P01", location)
