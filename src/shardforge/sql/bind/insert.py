"""INSERT, with ON CONFLICT and RETURNING.

Source: PostgreSQL 15, src/backend/parser/analyze.c (transformInsertStmt, transformInsertRow,
transformOnConflictClause), parse_clause.c (transformOnConflictArbiter), rewrite/rewriteHandler.c
(rewriteTargetListIU, rewriteValuesRTE), optimizer/util/plancat.c (infer_arbiter_indexes).
"""

from __future__ import annotations

from shardforge.sql.bind.arrays import bind_row_items
from shardforge.sql.bind.casts import coerce_boolean, resolve_unknown
from shardforge.sql.bind.dispatch import bind_in, location_of
from shardforge.sql.bind.returning import bind_returning, open_target
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.select import ONE_ROW, bind_query, bind_simple, finish
from shardforge.sql.bind.set_clause import bind_set_clause, find_target_column
from shardforge.sql.bind.tables import (
    assign,
    bind_column_default,
    bind_parts,
    bind_stored,
    bind_stored_condition,
    new_row,
    open_row,
)
from shardforge.sql.bind.tree import (
    ColumnId,
    ColumnRef,
    ConflictClause,
    Const,
    Expression,
    Insert,
    OutputColumn,
    Param,
    Project,
    ProjectSet,
    Query,
    Relation,
    Values,
)
from shardforge.sql.bind.walk import conjuncts
from shardforge.sql.bind.with_clause import bind_with, wrap_with
from shardforge.sql.catalog.descriptors import Column, Index, Table
from shardforge.sql.types import oids


def bind_insert(scope: Scope, node: Node) -> Insert:
    """An InsertStmt node. `scope` is a fresh level."""
    shared = scope.shared
    ctes = bind_with(scope, node["withClause"]) if "withClause" in node else []
    table, alias = open_target(scope, node["relation"], "INSERT")
    targets, sites = _target_columns(scope, table, node)
    source, columns, targets = _bind_source(scope, table, node, targets, sites)
    given = {column.id for column in targets}
    row = new_row(shared, table)
    defaults = []
    for column in table.columns:
        if column.id in given or column.dropped or column.generated is not None or column.hidden:
            continue
        default = bind_column_default(shared, table, column)
        if default is not None:
            defaults.append((column.id, default))
    parts = bind_parts(shared, table, row)
    conflict = None
    if "onConflictClause" in node:
        conflict = _bind_conflict(scope, table, alias, node["onConflictClause"])
    outputs: tuple[OutputColumn, ...] | None = None
    expressions: tuple[Expression, ...] = ()
    if "returningClause" in node:
        scope.namespace = [open_row(scope, table, alias, row)]
        outputs, expressions = bind_returning(scope, node["returningClause"])
    return Insert(
        table,
        wrap_with(ctes, source),
        columns,
        tuple(column.id for column in targets),
        tuple(defaults),
        row,
        parts.generated,
        parts.checks,
        parts.index_expressions,
        parts.index_predicates,
        conflict,
        outputs,
        expressions,
    )


def _target_columns(
    scope: Scope, table: Table, node: Node
) -> tuple[list[Column], list[int | None]]:
    if "cols" not in node:
        columns = [c for c in table.columns if not c.dropped and not c.hidden]
        return columns, [None] * len(columns)
    found: list[Column] = []
    sites: list[int | None] = []
    for item in node["cols"]:
        entry = item["ResTarget"]
        location = entry.get("location", 0)
        column = find_target_column(scope, table, entry["name"], location)
        if "indirection" in entry:
            raise scope.shared.unsupported("INSERT into a part of a column", location)
        if column in found:
            raise scope.shared.error(
                f'column "{column.name}" specified more than once', "42701", location
            )
        found.append(column)
        sites.append(location)
    return found, sites


class _Values:
    """Rows of an INSERT while DEFAULT may still stand in them (None)."""

    def __init__(self, rows: list[list[Expression | None]], sites: list[list[int | None]]) -> None:
        self.rows = rows
        self.sites = sites


def _bind_source(
    scope: Scope, table: Table, node: Node, targets: list[Column], sites: list[int | None]
) -> tuple[Relation, tuple[ColumnId, ...], list[Column]]:
    if "selectStmt" not in node:
        return ONE_ROW, (), []
    select = node["selectStmt"]["SelectStmt"]
    override = node.get("override", "OVERRIDING_NOT_SET")
    simple = not any(
        key in select
        for key in ("sortClause", "limitCount", "limitOffset", "lockingClause", "withClause")
    )
    if "valuesLists" in select and simple:
        return _from_values(scope, table, select["valuesLists"], node, targets, sites, override)
    return _from_query(scope, table, select, node, targets, sites, override)


def _check_width(
    scope: Scope,
    width: int,
    targets: list[Column],
    sites: list[int | None],
    extra: int | None,
    explicit: bool,
) -> None:
    if width > len(targets):
        raise scope.shared.error("INSERT has more expressions than target columns", "42601", extra)
    if explicit and width < len(targets):
        raise scope.shared.error(
            "INSERT has more target columns than expressions", "42601", sites[width]
        )


def _from_values(
    scope: Scope,
    table: Table,
    lists: list[Node],
    node: Node,
    targets: list[Column],
    sites: list[int | None],
    override: str,
) -> tuple[Relation, tuple[ColumnId, ...], list[Column]]:
    values = _bind_value_rows(scope, lists)
    width = len(values.rows[0])
    extra = values.sites[0][len(targets)] if width > len(targets) else None
    _check_width(scope, width, targets, sites, extra, "cols" in node)
    targets = targets[:width]
    kept: list[int] = []
    for offset, column in enumerate(targets):
        parts = [row[offset] for row in values.rows]
        if _takes_default(scope, column, all(part is None for part in parts), override):
            continue
        kept.append(offset)
    rows = []
    for row, at in zip(values.rows, values.sites, strict=True):
        made: list[Expression] = []
        for offset in kept:
            column, part = targets[offset], row[offset]
            if part is None:
                default = bind_column_default(scope.shared, table, column)
                made.append(default or Const(None, column.type_oid, column.typmod))
            else:
                made.append(assign(scope, column, part, at[offset]))
        rows.append(tuple(made))
    chosen = [targets[offset] for offset in kept]
    ids = tuple(scope.shared.new_column() for _ in chosen)
    if scope.has_srf:
        scope.has_srf = False
        return ProjectSet(ONE_ROW, tuple(zip(ids, rows[0], strict=True))), ids, chosen
    return Values(ids, tuple(rows)), ids, chosen


def _bind_value_rows(scope: Scope, lists: list[Node]) -> _Values:
    before, scope.clause = scope.clause, "insert" if len(lists) == 1 else "values"
    rows: list[list[Expression | None]] = []
    sites: list[list[int | None]] = []
    for each in lists:
        items = each["List"]["items"]
        row: list[Expression | None] = []
        at: list[int | None] = []
        for item in items:
            bound = [None] if "SetToDefault" in item else bind_row_items(scope, [item])
            row += bound
            at += [location_of(item)] * len(bound)
        if rows and len(row) != len(rows[0]):
            raise scope.shared.error(
                "VALUES lists must all be the same length", "42601", location_of(items[0])
            )
        rows.append(row)
        sites.append(at)
    scope.clause = before
    return _Values(rows, sites)


def _takes_default(scope: Scope, column: Column, all_default: bool, override: str) -> bool:
    """Whether the column gets its default whatever was given. Raises 428C9 for what may not be given."""
    if column.identity and override == "OVERRIDING_USER_VALUE":
        return True
    if all_default:
        return True
    if column.generated is not None:
        raise scope.shared.error(
            f'cannot insert a non-DEFAULT value into column "{column.name}"', "428C9",
            detail=f'Column "{column.name}" is a generated column.',
        )  # fmt: skip
    if column.identity == "a" and override != "OVERRIDING_SYSTEM_VALUE":
        raise scope.shared.error(
            f'cannot insert a non-DEFAULT value into column "{column.name}"', "428C9",
            detail=f'Column "{column.name}" is an identity column defined as GENERATED ALWAYS.',
            hint="Use OVERRIDING SYSTEM VALUE to override.",
        )  # fmt: skip
    return False


def _from_query(
    scope: Scope,
    table: Table,
    select: Node,
    node: Node,
    targets: list[Column],
    sites: list[int | None],
    override: str,
) -> tuple[Relation, tuple[ColumnId, ...], list[Column]]:
    child = Scope(scope.shared, scope)
    child.resolve_unknowns = False
    explicit = "cols" in node
    if select.get("op", "SETOP_NONE") == "SETOP_NONE" and "withClause" not in select:
        bound = bind_simple(child, select)
        visible = bound.visible()
        extra = visible[len(targets)].location if len(visible) > len(targets) else None
        _check_width(scope, len(visible), targets, sites, extra, explicit)
        for target, column in zip(visible, targets, strict=False):
            expression = target.expression
            if expression.type == oids.UNKNOWN and isinstance(expression, (Const, Param)):
                target.expression = assign(scope, column, expression, target.location)
        places = [target.location for target in visible]
        query = finish(bound)
    else:
        query = bind_query(child, select)
        _check_width(scope, len(query.outputs), targets, sites, None, explicit)
        places = [None] * len(query.outputs)
    targets = targets[: len(query.outputs)]
    return _project(scope, query, targets, places, override)


def _project(
    scope: Scope, query: Query, targets: list[Column], places: list[int | None], override: str
) -> tuple[Relation, tuple[ColumnId, ...], list[Column]]:
    """The query's columns cast to the table's."""
    outputs: list[tuple[ColumnId, Expression]] = []
    chosen: list[Column] = []
    changed = False
    for column, output, at in zip(targets, query.outputs, places, strict=True):
        if _takes_default(scope, column, False, override):
            continue
        reference = ColumnRef(output.column, output.type, output.typmod)
        made = assign(scope, column, reference, at)
        changed = changed or made is not reference
        outputs.append((scope.shared.new_column(), made))
        chosen.append(column)
    if not changed and len(chosen) == len(query.outputs):
        return query.root, tuple(o.column for o in query.outputs), chosen
    return Project(query.root, tuple(outputs)), tuple(c for c, _ in outputs), chosen


# ---------------------------------------------------------------- ON CONFLICT


def _bind_conflict(scope: Scope, table: Table, alias: str, node: Node) -> ConflictClause:
    shared = scope.shared
    existing, excluded = new_row(shared, table), new_row(shared, table)
    updating = node.get("action") == "ONCONFLICT_UPDATE"
    infer = node.get("infer")
    if infer is None and updating:
        raise shared.error(
            "ON CONFLICT DO UPDATE requires inference specification or constraint name", "42601",
            node.get("location", 0), hint="For example, ON CONFLICT (column_name).",
        )  # fmt: skip
    scope.namespace = [open_row(scope, table, alias, existing)]
    arbiters: tuple[Index, ...] = ()
    if infer is not None:
        arbiters = _arbiters(scope, table, infer, existing)
    if not updating:
        return ConflictClause(arbiters, None, None, existing, excluded)
    scope.namespace.append(open_row(scope, table, "excluded", excluded))
    assignments = bind_set_clause(scope, table, node["targetList"], alias)
    where = None
    if "whereClause" in node:
        item = node["whereClause"]
        where = coerce_boolean(scope, bind_in(scope, item, "where"), "WHERE", location_of(item))
    return ConflictClause(arbiters, assignments, where, existing, excluded)


def _arbiters(
    scope: Scope, table: Table, infer: Node, ids: dict[int, ColumnId]
) -> tuple[Index, ...]:
    if "conname" in infer:
        name = infer["conname"]
        for index in table.indexes:
            if index.constraint and index.name == name:
                return (index,)
        raise scope.shared.error(
            f'constraint "{name}" for table "{table.name}" does not exist', "42704"
        )
    plain, expressions = _inference_elements(scope, table, infer)
    wanted: list[Expression] = []
    if "whereClause" in infer:
        item = infer["whereClause"]
        wanted = conjuncts(
            coerce_boolean(
                scope, bind_in(scope, item, "index_predicate"), "WHERE", location_of(item)
            )
        )
    found = [
        index
        for index in table.indexes
        if index.unique
        and index.state != "write_only"
        and index.name
        and _matches(scope, table, index, plain, expressions, wanted, ids)
    ]
    if not found:
        raise scope.shared.error(
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            "42P10",
        )
    return tuple(found)


def _inference_elements(
    scope: Scope, table: Table, infer: Node
) -> tuple[set[int], list[Expression]]:
    plain: set[int] = set()
    expressions: list[Expression] = []
    for item in infer["indexElems"]:
        element = item["IndexElem"]
        if element.get("ordering", "SORTBY_DEFAULT") != "SORTBY_DEFAULT":
            raise scope.shared.error("ASC/DESC is not allowed in ON CONFLICT clause", "42P10")
        if element.get("nulls_ordering", "SORTBY_NULLS_DEFAULT") != "SORTBY_NULLS_DEFAULT":
            raise scope.shared.error(
                "NULLS FIRST/LAST is not allowed in ON CONFLICT clause", "42P10"
            )
        if "name" in element:
            name = element["name"]
            column = next(
                (c for c in table.columns if c.name == name and not c.dropped and not c.hidden),
                None,
            )
            if column is None:
                raise scope.shared.error(f'column "{name}" does not exist', "42703")
            plain.add(column.id)
        else:
            bound = bind_in(scope, element["expr"], "index")
            expressions.append(resolve_unknown(scope, bound, None))
    return plain, expressions


def _matches(
    scope: Scope,
    table: Table,
    index: Index,
    plain: set[int],
    expressions: list[Expression],
    wanted: list[Expression],
    ids: dict[int, ColumnId],
) -> bool:
    if {part.column_id for part in index.columns if part.expression is None} != plain:
        return False
    own = [
        bind_stored(scope.shared, part.expression, table, ids, "index")
        for part in index.columns
        if part.expression is not None
    ]
    if any(e not in own for e in expressions) or any(e not in expressions for e in own):
        return False
    if index.predicate is None:
        return True
    predicate = bind_stored_condition(scope.shared, index.predicate, table, ids, "index_predicate")
    return all(part in wanted for part in conjuncts(predicate))
