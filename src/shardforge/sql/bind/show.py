"""Bound trees as compact text, for golden tests and for debugging.

One line per relational node, inputs indented; columns are `#id`, functions by pg_proc name, types by pg_type name:

    project #2=#1
      filter int4eq(#3, $1:int4)
        scan t (#3=a, #1=b)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from shardforge.sql import pgdata
from shardforge.sql.bind import tree
from shardforge.sql.types.registry import find_type, format_type


def show(bound: tree.BoundStatement) -> str:
    """The statement as text."""
    return "\n".join(_statement(bound))


def _indented(lines: Iterable[str]) -> list[str]:
    return ["  " + line for line in lines]


def _type(oid: int) -> str:
    found = find_type(oid)
    return "row" if found is None else found.name


def _proc(oid: int) -> str:
    found = pgdata.proc_by_oid(oid)
    return str(oid) if found is None else found.proname


# ---------------------------------------------------------------- expressions


def expression(e: Any) -> str:
    """One expression."""
    return _EXPRESSIONS[type(e)](e)


def _list(items: Iterable[Any]) -> str:
    return ", ".join(expression(item) for item in items)


def _const(e: tree.Const) -> str:
    if e.value is None:
        shown = "null"
    elif isinstance(e.value, str):
        shown = "'" + e.value.replace("'", "''") + "'"
    else:
        shown = str(e.value)
    return f"{shown}:{_type(e.type)}"


def _call(e: tree.Call) -> str:
    return f"{e.name}({_list(e.args)})"


def _case(e: tree.Case) -> str:
    whens = " ".join(f"when {expression(a)} then {expression(b)}" for a, b in e.whens)
    otherwise = "" if e.otherwise is None else f" else {expression(e.otherwise)}"
    return f"case {whens}{otherwise} end:{_type(e.type)}"


def _logic(e: tree.BoolOp) -> str:
    if e.op == "not":
        return f"(not {expression(e.args[0])})"
    return "(" + f" {e.op} ".join(expression(arg) for arg in e.args) + ")"


def _subscript(e: tree.Subscript | tree.SubscriptAssignment) -> str:
    parts = []
    for lower, upper in e.subscripts:
        low, high = ("" if part is None else expression(part) for part in (lower, upper))
        parts.append(f"[{low}:{high}]" if e.is_slice else f"[{high}]")
    shown = expression(e.arg) + "".join(parts)
    if isinstance(e, tree.SubscriptAssignment):
        return f"({shown} := {expression(e.value)})"
    return shown


def _row_compare(e: tree.RowCompare) -> str:
    return f"(row({_list(e.left)}) {e.op} row({_list(e.right)}))"


def _subquery(e: tree.Subquery) -> str:
    outer = " outer " + ", ".join(f"#{c}" for c in e.outer) if e.outer else ""
    test = "" if e.test is None else f" test {expression(e.test)}"
    inner = " | ".join(line.strip() for line in _query(e.query))
    return f"{e.kind}{test}{outer} {{{inner}}}"


def _aggregate(e: tree.AggregateCall) -> str:
    words = "distinct " if e.distinct else ""
    direct = f"{_list(e.direct_args)} within " if e.direct_args else ""
    order = f" order by {_keys(e.order_by)}" if e.order_by else ""
    condition = "" if e.filter is None else f" filter {expression(e.filter)}"
    return f"{e.name}({direct}{words}{'*' if e.star else _list(e.args)}{order}){condition}"


def _window_call(e: tree.WindowCall) -> str:
    if e.aggregate is not None:
        return _aggregate(e.aggregate)
    return f"{e.name}({_list(e.args)})"


_EXPRESSIONS: dict[type, Callable[[Any], str]] = {
    tree.Const: _const,
    tree.Param: lambda e: f"${e.index + 1}:{_type(e.type)}",
    tree.ColumnRef: lambda e: f"#{e.column}",
    tree.Call: _call,
    tree.IoCast: lambda e: f"text_cast({expression(e.arg)} as {_type(e.type)})",
    tree.Relabel: lambda e: f"relabel({expression(e.arg)} as {_type(e.type)})",
    tree.ArrayCast: lambda e: (
        f"each({expression(e.arg)} as {_type(e.type)}: {expression(e.element)})"
    ),
    tree.Placeholder: lambda e: "_",
    tree.LengthCoercion: lambda e: (
        f"{'cut' if e.explicit else 'fit'}({expression(e.arg)} to {format_type(e.type, e.typmod)})"
    ),
    tree.BoolOp: _logic,
    tree.NullTest: lambda e: (
        f"({expression(e.arg)} is {'not ' * e.negated}null{' as row' * e.row})"
    ),
    tree.BooleanTest: lambda e: f"({expression(e.arg)} is {'not ' * e.negated}{e.test})",
    tree.DistinctTest: lambda e: (
        f"({expression(e.left)} is {'not ' * e.negated}distinct from {expression(e.right)} by {_proc(e.proc)})"
    ),
    tree.Case: _case,
    tree.Coalesce: lambda e: f"coalesce({_list(e.args)}):{_type(e.type)}",
    tree.MinMax: lambda e: (
        f"{'greatest' if e.greatest else 'least'}({_list(e.args)}):{_type(e.type)}"
    ),
    tree.NullIf: lambda e: (
        f"nullif({expression(e.left)}, {expression(e.right)} by {_proc(e.proc)}):{_type(e.type)}"
    ),
    tree.ArrayExpr: lambda e: f"array[{_list(e.elements)}]:{_type(e.type)}",
    tree.RowExpr: lambda e: f"row({_list(e.args)})",
    tree.FieldSelect: lambda e: f"{expression(e.arg)}.{e.offset}:{_type(e.type)}",
    tree.Subscript: _subscript,
    tree.SubscriptAssignment: _subscript,
    tree.ScalarArrayOp: lambda e: (
        f"({expression(e.left)} {_proc(e.proc)} {'any' if e.use_or else 'all'} {expression(e.array)})"
    ),
    tree.RowCompare: _row_compare,
    tree.Subquery: _subquery,
    tree.AggregateCall: _aggregate,
    tree.WindowCall: _window_call,
}


def _keys(keys: Iterable[tree.SortKey]) -> str:
    return ", ".join(
        expression(k.expression)
        + " desc" * k.descending
        + (" nulls first" if k.nulls_first else " nulls last") * (k.nulls_first != k.descending)
        for k in keys
    )


def _outputs(pairs: Iterable[tuple[tree.ColumnId, Any]]) -> str:
    return ", ".join(f"#{column}={expression(e)}" for column, e in pairs)


# ---------------------------------------------------------------- relations


def relation(r: Any) -> list[str]:
    """A relation's lines."""
    return _RELATIONS[type(r)](r)


def _over(line: str, *inputs: Any) -> list[str]:
    return [line, *_indented(part for each in inputs for part in relation(each))]


def _scan(r: tree.Scan) -> list[str]:
    names = {column.id: column.name for column in r.table.columns} | {0: "(key)", -6: "tableoid"}
    columns = ", ".join(f"#{column}={names[attnum]}" for column, attnum in r.columns)
    return [f"scan {r.table.name}{'' if r.alias == r.table.name else ' ' + r.alias} ({columns})"]


def _values(r: tree.Values) -> list[str]:
    if not r.columns:
        return ["one row"]
    ids = ", ".join(f"#{column}" for column in r.columns)
    return [f"values {ids}: " + "; ".join(f"({_list(row)})" for row in r.rows)]


def _function_scan(r: tree.FunctionScan) -> list[str]:
    parts = [
        f"{expression(f)} as ({', '.join(f'#{c}' for c in columns)})"
        for f, columns in zip(r.functions, r.columns, strict=True)
    ]
    ordinality = "" if r.ordinality is None else f" ordinality #{r.ordinality}"
    return [f"functions {', '.join(parts)}{ordinality}"]


def _join(r: tree.Join) -> list[str]:
    condition = "" if r.condition is None else f" on {expression(r.condition)}"
    return _over(f"{r.kind} join{' lateral' * r.lateral}{condition}", r.left, r.right)


def _group(r: tree.Aggregate) -> list[str]:
    parts = [f"by {_outputs(r.keys)}" if r.keys else "", _outputs(r.calls)]
    if r.sets is not None:
        parts.append(f"sets {' '.join(str(list(each)) for each in r.sets)}")
    parts += [f"#{column}=grouping{list(offsets)}" for column, offsets in r.grouping]
    return _over("aggregate " + "; ".join(part for part in parts if part), r.input)


def _window(r: tree.Window) -> list[str]:
    parts = [_outputs(r.calls)]
    if r.partition_by:
        parts.append(f"partition by {_list(r.partition_by)}")
    if r.order_by:
        parts.append(f"order by {_keys(r.order_by)}")
    if r.frame != tree.Frame():
        f = r.frame
        bounds = [
            word + ("" if offset is None else f"({expression(offset)})")
            for word, offset in ((f.start, f.start_offset), (f.end, f.end_offset))
        ]
        parts.append(
            f"{f.mode} {' to '.join(bounds)}{' exclude ' + f.exclude if f.exclude else ''}"
        )
    return _over("window " + "; ".join(parts), r.input)


def _limit(r: tree.Limit) -> list[str]:
    parts = ["limit"] + [
        f"{word} {expression(value)}"
        for word, value in (("count", r.limit), ("offset", r.offset))
        if value is not None
    ]
    return _over(" ".join(parts) + " with ties" * r.with_ties, r.input)


def _set_operation(r: tree.SetOperation) -> list[str]:
    ids = [
        ", ".join(f"#{c}" for c in side) for side in (r.columns, r.left_columns, r.right_columns)
    ]
    types = ", ".join(_type(oid) for oid in r.types)
    return _over(
        f"{r.op}{' all' * r.all} ({ids[0]}) from ({ids[1]}), ({ids[2]}): {types}", r.left, r.right
    )


def _with(r: tree.With) -> list[str]:
    lines = []
    for cte in r.ctes:
        ids = ", ".join(f"#{c}" for c in cte.columns)
        lines.append(f"with {cte.name} {cte.label} ({ids})")
        if cte.recursive is not None:
            base, step, keep_all = cte.recursive
            steps = ", ".join(f"#{c}" for c in cte.step_columns)
            lines += _indented(
                [*relation(base), f"union{' all' * keep_all} ({steps})", *relation(step)]
            )
        elif isinstance(cte.query, (tree.Insert, tree.Update, tree.Delete)):
            lines += _indented(_statement(cte.query))
        else:
            lines += _indented(relation(cte.query))
    return [*lines, *relation(r.body)]


def _lock(r: tree.LockRows) -> list[str]:
    word = ("key share", "share", "no key update", "update")[r.strength]
    keys = ", ".join(f"#{column} of {table.name}" for column, table in r.keys)
    return _over(f"lock {word} {r.policy} {keys}", r.input)


_RELATIONS: dict[type, Callable[[Any], list[str]]] = {
    tree.Scan: _scan,
    tree.VirtualScan: lambda r: [
        f"catalog {r.relation} ({', '.join(f'#{c}={p}' for c, p in r.columns)})"
    ],
    tree.Values: _values,
    tree.FunctionScan: _function_scan,
    tree.CteScan: lambda r: [
        f"cte {r.name} ({', '.join(f'#{own}=#{theirs}' for own, theirs in r.columns)})"
    ],
    tree.Filter: lambda r: _over(f"filter {expression(r.condition)}", r.input),
    tree.Project: lambda r: _over(f"project {_outputs(r.outputs)}", r.input),
    tree.ProjectSet: lambda r: _over(f"project set {_outputs(r.outputs)}", r.input),
    tree.Join: _join,
    tree.Aggregate: _group,
    tree.Window: _window,
    tree.Distinct: lambda r: _over(f"distinct {_list(r.on)}".rstrip(), r.input),
    tree.Sort: lambda r: _over(f"sort {_keys(r.keys)}", r.input),
    tree.Limit: _limit,
    tree.SetOperation: _set_operation,
    tree.With: _with,
    tree.LockRows: _lock,
}


# ---------------------------------------------------------------- statements


def _columns(outputs: Iterable[tree.OutputColumn]) -> str:
    return ", ".join(f"#{o.column} {o.name} {format_type(o.type, o.typmod)}" for o in outputs)


def _query(q: tree.Query) -> list[str]:
    return [f"-> {_columns(q.outputs)}", *relation(q.root)]


def _assignments(table: Any, pairs: Iterable[tuple[int, Any]]) -> str:
    names = {column.id: column.name for column in table.columns}
    return ", ".join(f"{names[attnum]} = {expression(value)}" for attnum, value in pairs)


def _row(table: Any, row: Any) -> str:
    names = {column.id: column.name for column in table.columns}
    return ", ".join(f"#{column}={names[attnum]}" for attnum, column in row.items())


def _parts(s: Any) -> list[str]:
    lines = []
    if getattr(s, "generated", ()):
        lines.append(f"generated {_assignments(s.table, s.generated)}")
    lines += [f"check {name} {expression(e)}" for name, e in getattr(s, "checks", ())]
    names = {index.id: index.name for index in s.table.indexes}
    for index, keys in s.index_expressions.items():
        shown = ", ".join("-" if key is None else expression(key) for key in keys)
        lines.append(f"index {names[index]} ({shown})")
    for index, predicate in s.index_predicates.items():
        lines.append(f"index {names[index]} where {expression(predicate)}")
    if s.returning is not None:
        lines.append(f"returning {_columns(s.returning)}: {_list(s.returning_expressions)}")
    return lines


def _conflict(s: tree.Insert) -> list[str]:
    clause = s.conflict
    if clause is None:
        return []
    arbiters = ", ".join(index.name for index in clause.arbiters) or "any"
    if clause.assignments is None:
        return [f"on conflict {arbiters} do nothing"]
    lines = [
        f"on conflict {arbiters} set {_assignments(s.table, clause.assignments)}",
        f"  existing ({_row(s.table, clause.existing)}) excluded ({_row(s.table, clause.excluded)})",
    ]
    if clause.where is not None:
        lines.append(f"  where {expression(clause.where)}")
    return lines


def _statement(s: tree.BoundStatement) -> list[str]:
    if isinstance(s, tree.Query):
        return _query(s)
    if isinstance(s, tree.Insert):
        names = {column.id: column.name for column in s.table.columns}
        targets = ", ".join(
            f"{names[attnum]}=#{column}"
            for attnum, column in zip(s.targets, s.source_columns, strict=True)
        )
        lines = [f"insert {s.table.name} ({targets}) row ({_row(s.table, s.row)})"]
        if s.defaults:
            lines.append(f"  defaults {_assignments(s.table, s.defaults)}")
        return [*lines, *_indented([*_conflict(s), *_parts(s), *relation(s.source)])]
    if isinstance(s, tree.Update):
        head = f"update {s.table.name} key #{s.key} set {_assignments(s.table, s.assignments)}"
        rows = f"old ({_row(s.table, s.old)}) new ({_row(s.table, s.row)})"
        return [head, *_indented([rows, *_parts(s), *relation(s.source)])]
    head = f"delete {s.table.name} key #{s.key} row ({_row(s.table, s.row)})"
    return [head, *_indented([*_parts(s), *relation(s.source)])]
