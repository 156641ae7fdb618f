"""From the rewritten tree to a plan: access paths, join methods, and where a sort is not needed.

`wanted` is the order that a node above would like; a node that gives it says so in `order`, and the sort is left out.
`few` says that probably only some rows will be taken (a LIMIT), which makes reading in order worth while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardforge.keys import BUCKETS
from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import Index
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.execute.keyspace import IndexSpace
from shardforge.sql.plan import access, logical, nodes
from shardforge.sql.plan.changes import ChangePlanner
from shardforge.sql.plan.comparisons import EQUAL, as_comparison, same_hash
from shardforge.sql.plan.estimate import (
    distinct_sizes,
    estimated_rows,
    filtered,
    joined_rows,
    selectivity,
)
from shardforge.sql.plan.logical import ColumnIds, Relation, columns_of, free_columns
from shardforge.sql.plan.materialize import keep_independent_parts
from shardforge.sql.plan.nodes import Access, Node, Ordering
from shardforge.sql.plan.postponing import postponed
from shardforge.sql.plan.rules import apply_rules
from shardforge.sql.plan.subqueries import extract_from

Wanted = tuple[Ordering, ...]


class Builder:
    """Builds the plan of one statement."""

    def __init__(self, catalog: CatalogSnapshot, ids: ColumnIds) -> None:
        self.catalog = catalog
        self.ids = ids
        self.changes = ChangePlanner(catalog)
        self._ctes: dict[int, tuple[str, tuple[ColumnId, ...]]] = {}
        self._sizes: dict[ColumnId, float] = {}
        """How many values the columns of tables may have."""

    # ---- dispatch --------------------------------------------------------------------------------

    def build(self, relation: Relation, wanted: Wanted = (), *, few: bool = False) -> Node:
        """The plan of a relation to which the rules have been applied."""
        match relation:
            case tree.Scan():
                return self._scan(relation, [], wanted, few=few)
            case tree.Filter(input=tree.Scan() as scan, condition=condition):
                return self._scan(scan, walk.conjuncts(condition), wanted, few=few)
            case tree.Filter(input=inner, condition=condition):
                return self._filter(self.build(inner, wanted, few=few), condition)
            case tree.Project():
                return self._project(relation, wanted, few=few)
            case tree.Join():
                return self._join(relation)
            case tree.Sort():
                return self._sorted(relation, None, few=few)
            case tree.Limit():
                return self._limit(relation)
            case logical.Apply():
                return self._apply(relation, wanted, few=few)
            case tree.LockRows(input=inner):
                below = self.build(inner, wanted, few=few)
                keys = tuple(column for column, _ in relation.keys)
                tables = tuple(table.name for _, table in relation.keys)
                return nodes.LockRows(
                    columns=below.columns, rows=below.rows, order=below.order, input=below, keys=keys,
                    tables=tables, strength=relation.strength, policy=relation.policy,
                )  # fmt: skip
        return self._other(relation)

    def _other(self, relation: Relation) -> Node:
        columns, rows = columns_of(relation), estimated_rows(relation)
        match relation:
            case tree.VirtualScan():
                assert relation.table is not None, "the binder found the catalog table"
                return nodes.VirtualTableScan(
                    columns=columns, rows=rows, relation=relation.relation, alias=relation.alias,
                    table=relation.table,
                    positions=tuple(position for _, position in relation.columns),
                )  # fmt: skip
            case tree.Values():
                return nodes.ValuesScan(columns=columns, rows=rows, lists=relation.rows)
            case logical.Given():
                return nodes.GivenRows(columns=columns, rows=rows)
            case tree.FunctionScan():
                return nodes.FunctionScan(
                    columns=columns, rows=rows, functions=relation.functions,
                    widths=tuple(map(len, relation.columns)), ordinality=relation.ordinality is not None,
                )  # fmt: skip
            case tree.CteScan():
                return self._cte_scan(relation)
            case tree.ProjectSet(input=inner, outputs=outputs):
                below = self.build(inner)
                return nodes.ProjectSet(
                    columns=columns, rows=below.rows * 10, input=below, outputs=tuple(e for _, e in outputs)
                )  # fmt: skip
            case tree.Aggregate():
                return self._aggregate(relation)
            case tree.Window():
                below = self.build(relation.input)
                return nodes.Window(
                    columns=columns, rows=below.rows, input=below, partition_by=relation.partition_by,
                    order_by=relation.order_by, frame=relation.frame, calls=tuple(c for _, c in relation.calls),
                )  # fmt: skip
            case tree.Distinct():
                return self._distinct(relation)
            case tree.SetOperation():
                return self._set_operation(relation)
            case tree.With():
                return self._with(relation)
        raise AssertionError(f"a relation of the bound tree: {type(relation).__name__}")

    # ---- tables ----------------------------------------------------------------------------------

    def _scan(
        self, scan: tree.Scan, conditions: Sequence[Expression], wanted: Wanted, *, few: bool
    ) -> Node:
        path = access.best_path(scan, conditions, _readable)
        chosen = path.access
        order: Wanted = ()
        if wanted:
            chosen, order = self._ordered(scan, path, wanted, few=few)
        return self._table_scan(scan, conditions, chosen, path.rows, order)

    def _table_scan(
        self,
        scan: tree.Scan,
        conditions: Sequence[Expression],
        chosen: Access,
        rows: float,
        order: Wanted,
    ) -> nodes.TableScan:
        rest = [c for c in conditions if c not in chosen.conditions]
        return nodes.TableScan(
            columns=tuple(column for column, _ in scan.columns), rows=filtered(rows, rest), order=order,
            table=scan.table, alias=scan.alias, attnums=tuple(attnum for _, attnum in scan.columns),
            access=chosen, condition=walk.conjunction(rest),
        )  # fmt: skip

    def _ordered(
        self, scan: tree.Scan, path: access.Path, wanted: Wanted, *, few: bool
    ) -> tuple[Access, Wanted]:
        """The access, perhaps another one, so that rows come as wanted; the order is empty when they do not."""
        attnums = dict(scan.columns)
        wished = [(attnums.get(o.column), o.descending, o.nulls_first) for o in wanted]
        if path.access.point and not any(match.many for match in path.access.equal):
            return path.access, wanted
        candidates = [path.access]
        if path.access.whole and few:
            candidates += [Access(index) for index in scan.table.indexes if _readable(index)]
        for candidate in candidates:
            if any(match.many for match in candidate.equal):
                continue
            index = candidate.index
            space = IndexSpace(scan.table, index)
            if space.kind == "colocated" and candidate.shard is None:
                continue
            direction = _direction(scan, index, len(candidate.equal), wished)
            if direction is None:
                continue
            spans = (
                BUCKETS if space.kind == "hash" and len(candidate.equal) < len(index.columns) else 1
            )
            if spans > 1 and not few:
                continue
            return (
                replace(candidate, reverse=direction < 0, merged=spans > 1, spans=spans),
                wanted,
            )
        return path.access, ()

    # ---- one row at a time -----------------------------------------------------------------------

    def _filter(self, below: Node, condition: Expression) -> Node:
        rows = max(below.rows * selectivity(condition), 1.0)
        return nodes.Filter(
            columns=below.columns, rows=rows, order=below.order, input=below, condition=condition
        )

    def _project(self, project: tree.Project, wanted: Wanted, *, few: bool) -> Node:
        outputs = dict(project.outputs)
        inner_wanted = []
        for ordering in wanted:
            source = outputs.get(ordering.column)
            if not isinstance(source, tree.ColumnRef):
                break
            inner_wanted.append(ordering._replace(column=source.column))
        complete = len(inner_wanted) == len(wanted)
        below = self.build(project.input, tuple(inner_wanted) if complete else (), few=few)
        order = wanted if complete and wanted and below.order else ()
        columns = tuple(column for column, _ in project.outputs)
        return nodes.Project(
            columns=columns, rows=below.rows, order=order, input=below,
            outputs=tuple(value for _, value in project.outputs),
        )  # fmt: skip

    def _apply(self, apply: logical.Apply, wanted: Wanted, *, few: bool) -> Node:
        below = self.build(apply.input, wanted, few=few)
        subquery = apply.subquery
        root = subquery.query.root
        outputs = tuple(output.column for output in subquery.query.outputs)
        inner = self.with_columns(self.build(root, few=subquery.kind == "exists"), outputs)
        outer = free_columns(root)
        if outer:
            inner = keep_independent_parts(inner, outer)
        element = subquery.query.outputs[0].type if subquery.kind == "array" else 0
        return nodes.Apply(
            columns=(*below.columns, apply.column), rows=below.rows, order=below.order, input=below,
            plan=inner, kind=subquery.kind, test=subquery.test, outer=tuple(sorted(outer)), lazy=apply.lazy,
            element_type=element,
        )  # fmt: skip

    def with_columns(self, below: Node, columns: tuple[ColumnId, ...]) -> Node:
        """`below` yielding exactly these columns."""
        if below.columns == columns:
            return below
        if isinstance(below, nodes.Project):
            values = dict(zip(below.columns, below.outputs, strict=True))
            return replace(below, columns=columns, outputs=tuple(values[c] for c in columns))
        outputs = tuple(tree.ColumnRef(column, 0) for column in columns)
        return nodes.Project(
            columns=columns, rows=below.rows, order=below.order, input=below, outputs=outputs
        )

    # ---- order and limits ------------------------------------------------------------------------

    def _sorted(
        self, sort: tree.Sort, top: tuple[Expression | None, Expression | None] | None, *, few: bool
    ) -> Node:
        late = postponed(sort)
        if late is None:
            return self._sort(sort, top, few=few)
        early, outputs = late
        below = self._sort(early, top, few=few)
        return nodes.Project(
            columns=columns_of(sort), rows=below.rows, input=below, outputs=outputs
        )

    def _sort(
        self, sort: tree.Sort, top: tuple[Expression | None, Expression | None] | None, *, few: bool
    ) -> Node:
        wanted: list[Ordering] = []
        for key in sort.keys:
            if not isinstance(key.expression, tree.ColumnRef):
                break
            wanted.append(Ordering(key.expression.column, key.descending, key.nulls_first))
        sortable = len(wanted) == len(sort.keys)
        below = self.build(
            sort.input, tuple(wanted) if sortable else (), few=few or top is not None
        )
        if sortable and below.order:
            return below
        return nodes.Sort(
            columns=below.columns, rows=below.rows, input=below, keys=sort.keys, top=top
        )

    def _limit(self, limit: tree.Limit) -> Node:
        few = limit.limit is not None
        ties: tuple[tree.SortKey, ...] = ()
        if limit.with_ties and isinstance(limit.input, tree.Sort):
            ties = limit.input.keys
            below = self._sort(limit.input, None, few=few)
        else:
            below = self._top(limit.input, (limit.limit, limit.offset) if few else None)
        rows = below.rows
        if isinstance(limit.limit, tree.Const) and limit.limit.value is not None:
            rows = min(rows, float(limit.limit.value))
        return nodes.Limit(
            columns=below.columns, rows=rows, order=below.order, input=below, limit=limit.limit,
            offset=limit.offset, ties=ties,
        )  # fmt: skip

    def _top(
        self, relation: Relation, top: tuple[Expression | None, Expression | None] | None
    ) -> Node:
        """What is right below a LIMIT: a sort there need only find the first rows."""
        if isinstance(relation, tree.Sort) and top is not None:
            return self._sorted(relation, top, few=True)
        if (
            isinstance(relation, tree.Project)
            and isinstance(relation.input, tree.Sort)
            and top is not None
        ):
            below = self._sort(relation.input, top, few=True)
            return nodes.Project(
                columns=columns_of(relation), rows=below.rows, input=below,
                outputs=tuple(value for _, value in relation.outputs),
            )  # fmt: skip
        return self.build(relation, few=top is not None)

    # ---- joins -----------------------------------------------------------------------------------

    def _join(self, join: tree.Join) -> Node:
        conditions = walk.conjuncts(join.condition)
        kind = "inner" if join.kind == "cross" else join.kind
        if join.lateral and free_columns(join.right) & set(columns_of(join.left)):
            return self._lateral(join, kind)
        left, right = self.build(join.left), self.build(join.right)
        left_columns, right_columns = set(left.columns), set(right.columns)
        rows = joined_rows(kind, left.rows, right.rows, conditions, self._sizes)
        by_index = self._index_join(kind, left, join.right, conditions, rows)
        if by_index is not None:
            return by_index
        if kind == "inner" and right.rows < left.rows:
            swapped = self._index_join(kind, right, join.left, conditions, rows)
            if swapped is not None:
                return swapped
        pairs, rest = _hash_keys(conditions, left_columns, right_columns)
        if kind == "inner" and pairs and right.rows > left.rows:
            left, right = right, left
            pairs = [(b, a) for a, b in pairs]
        columns = left.columns if kind in ("semi", "anti") else left.columns + right.columns
        if pairs:
            return nodes.HashJoin(
                columns=columns, rows=rows, kind=kind, left=left, right=right,
                left_keys=tuple(a for a, _ in pairs), right_keys=tuple(b for _, b in pairs),
                condition=walk.conjunction(rest),
            )  # fmt: skip
        return nodes.NestedLoop(
            columns=columns, rows=rows, kind=kind, left=left, right=right, condition=join.condition
        )

    def _lateral(self, join: tree.Join, kind: str) -> Node:
        left, right = self.build(join.left), self.build(join.right)
        columns = left.columns if kind in ("semi", "anti") else left.columns + right.columns
        free = free_columns(join.right)
        right = keep_independent_parts(right, free)
        taken = tuple(sorted(free))
        return nodes.NestedLoop(
            columns=columns, rows=left.rows * right.rows, kind=kind, left=left, right=right,
            condition=join.condition, lateral=taken,
        )  # fmt: skip

    def _index_join(
        self, kind: str, left: Node, right: Relation, conditions: list[Expression], rows: float
    ) -> Node | None:
        """A join that looks up each left row in an index of the right side, when that is cheaper than reading it."""
        if kind == "full":
            return None
        own: list[Expression] = []
        if isinstance(right, tree.Filter):
            own, right = walk.conjuncts(right.condition), right.input
        if not isinstance(right, tree.Scan):
            return None
        alone = access.best_path(right, own, _readable)
        path = access.best_path(right, [*conditions, *own], _readable)
        if path.access.whole or not set(path.access.conditions) & set(conditions):
            return None
        if left.rows * (path.cost + 1.0) > alone.cost + left.rows:
            return None
        mine = [c for c in own if c not in path.access.conditions]
        scan = self._table_scan(right, mine, path.access, path.rows, ())
        rest = [c for c in conditions if c not in path.access.conditions]
        columns = left.columns if kind in ("semi", "anti") else left.columns + scan.columns
        return nodes.IndexJoin(
            columns=columns,
            rows=rows,
            kind=kind,
            left=left,
            scan=scan,
            condition=walk.conjunction(rest),
        )

    # ---- many rows -------------------------------------------------------------------------------

    def _aggregate(self, relation: tree.Aggregate) -> Node:
        below = self.build(relation.input)
        return nodes.Aggregate(
            columns=columns_of(relation), rows=estimated_rows(relation), input=below,
            keys=tuple(value for _, value in relation.keys), calls=tuple(call for _, call in relation.calls),
            sets=relation.sets, grouping=tuple(offsets for _, offsets in relation.grouping),
        )  # fmt: skip

    def _distinct(self, relation: tree.Distinct) -> Node:
        below = self.build(relation.input)
        types = column_types(relation.input, below.columns) if not relation.on else ()
        return nodes.Distinct(
            columns=below.columns, rows=max(below.rows * 0.5, 1.0), order=below.order, input=below,
            on=relation.on, types=types,
        )  # fmt: skip

    def _set_operation(self, relation: tree.SetOperation) -> Node:
        left = self.with_columns(self.build(relation.left), relation.left_columns)
        right = self.with_columns(self.build(relation.right), relation.right_columns)
        rows = left.rows + right.rows
        if relation.op.lower() == "union" and relation.all:
            parts: list[Node] = []
            for part in (left, right):
                parts.extend(part.inputs if isinstance(part, nodes.Append) else (part,))
            return nodes.Append(columns=relation.columns, rows=rows, inputs=tuple(parts))
        return nodes.SetOperation(
            columns=relation.columns, rows=rows, op=relation.op.lower(), all=relation.all, left=left,
            right=right, types=relation.types,
        )  # fmt: skip

    # ---- CTEs ------------------------------------------------------------------------------------

    def _cte_scan(self, scan: tree.CteScan) -> Node:
        label, columns = self._ctes[scan.name]
        offsets = {column: offset for offset, column in enumerate(columns)}
        return nodes.CteScan(
            columns=tuple(column for column, _ in scan.columns), rows=estimated_rows(scan), name=scan.name,
            label=label, positions=tuple(offsets[source] for _, source in scan.columns),
        )  # fmt: skip

    def _with(self, relation: tree.With) -> Node:
        plans = tuple(self._cte(cte) for cte in relation.ctes)
        body = self.build(relation.body)
        return nodes.With(
            columns=body.columns, rows=body.rows, order=body.order, ctes=plans, body=body
        )

    def _cte(self, cte: tree.Cte) -> nodes.CtePlan:
        if cte.recursive is not None:
            base, step, union_all = cte.recursive
            first = self.with_columns(self.build(base), cte.columns)
            self._ctes[cte.name] = (cte.label, cte.columns)
            again = self.with_columns(self.build(step), cte.step_columns)
            return nodes.CtePlan(cte.name, cte.label, first, again, union_all, cte.types)
        if isinstance(cte.query, tree.Insert | tree.Update | tree.Delete):
            plan: Node = self.statement(cte.query)
            self._ctes[cte.name] = (cte.label, cte.columns or plan.columns)
            return nodes.CtePlan(cte.name, cte.label, plan, modifies=True)
        plan = self.with_columns(self.build(cte.query), cte.columns)
        self._ctes[cte.name] = (cte.label, cte.columns)
        return nodes.CtePlan(cte.name, cte.label, plan)

    # ---- statements ------------------------------------------------------------------------------

    def query(self, query: tree.Query) -> Node:
        """The plan of a SELECT, yielding its output columns."""
        outputs = tuple(output.column for output in query.outputs)
        return self.with_columns(self._root(query.root), outputs)

    def _root(self, relation: Relation) -> Node:
        """The plan of a relation as the binder made it."""
        root = apply_rules(relation, self.ids)
        self._sizes |= distinct_sizes(root)
        return self.build(root)

    def statement(self, bound: tree.Insert | tree.Update | tree.Delete) -> nodes.Modification:
        """The plan of a change."""
        returning, given = self._returning(bound)
        columns = tuple(output.column for output in bound.returning or ())
        if isinstance(bound, tree.Update):
            assignments, source_tree = extract_from(bound.assignments, bound.source, self.ids)
            bound = replace(bound, assignments=assignments, source=source_tree)
        source = self._root(bound.source)
        change = self.changes.of_statement(bound)
        if isinstance(bound, tree.Insert):
            source = self.with_columns(source, bound.source_columns)
            return nodes.Insert(
                columns=columns, rows=source.rows, statement=bound, source=source, change=change,
                returning=returning, given=given,
            )  # fmt: skip
        if isinstance(bound, tree.Update):
            return nodes.Update(
                columns=columns, rows=source.rows, statement=bound, source=source, change=change,
                returning=returning, given=given,
            )  # fmt: skip
        return nodes.Delete(
            columns=columns, rows=source.rows, statement=bound, source=source, change=change,
            returning=returning, given=given,
        )  # fmt: skip

    def _returning(
        self, bound: tree.Insert | tree.Update | tree.Delete
    ) -> tuple[Node | None, tuple[ColumnId, ...]]:
        """A plan for RETURNING expressions that have subqueries."""
        if not walk.has(bound.returning_expressions, tree.Subquery):
            return None, ()
        given = tuple(dict.fromkeys([*bound.row.values(), *columns_of(bound.source)]))
        values, below = extract_from(bound.returning_expressions, logical.Given(given), self.ids)
        columns = tuple(output.column for output in bound.returning or ())
        project = tree.Project(below, tuple(zip(columns, values, strict=True)))
        return self._root(project), given


def _readable(index: Index) -> bool:
    return index.state == "public" and index.predicate is None


def _direction(
    scan: tree.Scan, index: Index, fixed: int, wished: Sequence[tuple[int | None, bool, bool]]
) -> int | None:
    """1 or -1 when reading the index forwards or backwards gives the wished order, else None."""
    constant = {part.column_id for part in index.columns[:fixed]}
    parts = list(index.columns[fixed:])
    direction = 0
    for attnum, descending, nulls_first in wished:
        if attnum in constant:
            continue
        if not parts or parts[0].column_id != attnum or attnum == 0:
            return None
        part = parts.pop(0)
        if part.descending == descending and part.nulls_first == nulls_first:
            step = 1
        elif part.descending != descending and part.nulls_first != nulls_first:
            step = -1
        elif part.descending == descending or _not_null(scan, attnum):
            if not _not_null(scan, attnum):
                return None
            step = 1 if part.descending == descending else -1
        else:
            return None
        if direction not in (0, step):
            return None
        direction = step
    return direction or 1


def _not_null(scan: tree.Scan, attnum: int | None) -> bool:
    return any(column.id == attnum and column.not_null for column in scan.table.columns)


def _hash_keys(
    conditions: Sequence[Expression], left: set[ColumnId], right: set[ColumnId]
) -> tuple[list[tuple[Expression, Expression]], list[Expression]]:
    """(pairs of expressions that must be equal, the other conditions)."""
    pairs: list[tuple[Expression, Expression]] = []
    rest: list[Expression] = []
    for condition in conditions:
        comparison = as_comparison(condition)
        if (
            comparison is not None
            and comparison.strategy == EQUAL
            and same_hash(comparison.left.type, comparison.right.type)
            and not walk.is_volatile(condition)
        ):
            one = walk.references(comparison.left) & (left | right)
            other = walk.references(comparison.right) & (left | right)
            if one and other and one <= left and other <= right:
                pairs.append((comparison.left, comparison.right))
                continue
            if one and other and one <= right and other <= left:
                pairs.append((comparison.right, comparison.left))
                continue
        rest.append(condition)
    return pairs, rest


def column_types(relation: Relation, columns: Sequence[ColumnId]) -> tuple[int, ...]:
    """The types of a relation's columns, from where they are made."""
    found: dict[ColumnId, int] = {}
    for node in walk.nodes(relation):
        match node:
            case tree.Scan(table=table, columns=pairs):
                types = {column.id: column.type_oid for column in table.columns}
                found.update(
                    (c, types.get(attnum, 17 if attnum == 0 else 26)) for c, attnum in pairs
                )
            case tree.Project(outputs=outputs) | tree.ProjectSet(outputs=outputs):
                found.update((c, e.type) for c, e in outputs if e.type)
            case tree.Aggregate(keys=keys, calls=calls, grouping=grouping):
                found.update((c, e.type) for c, e in (*keys, *calls))
                found.update((c, 23) for c, _ in grouping)
            case tree.Window(calls=calls):
                found.update((c, call.type) for c, call in calls)
            case tree.SetOperation(columns=made, types=oids) if oids:
                found.update(zip(made, oids, strict=True))
            case tree.ColumnRef(column=column, type=oid) if oid:
                found.setdefault(column, oid)
            case tree.Values(columns=made, rows=rows) if rows:
                found.update((c, e.type) for c, e in zip(made, rows[0], strict=True))
    return tuple(found.get(column, 0) for column in columns)
