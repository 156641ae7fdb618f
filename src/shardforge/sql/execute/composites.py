"""Expressions over arrays, records and jsonb subscripts; see `expressions` for the rules."""

from __future__ import annotations

from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.execute.context import ExecContext
from shardforge.sql.execute.expressions import Compiled, Layout, compile_expression, compiles, function_of
from shardforge.sql.functions.json_subscript import jsonb_subscript
from shardforge.sql.types import array, oids
from shardforge.sql.types.values import Array

_ELEMENT = ColumnId(-1_000_000)
"""The layout entry of `Placeholder`: rows of one value."""


@compiles(tree.Placeholder)
def _placeholder(node: tree.Placeholder, layout: Layout) -> Compiled:
    offset = layout[_ELEMENT]
    return lambda row, ctx: row[offset]


@compiles(tree.ArrayCast)
def _array_cast(node: tree.ArrayCast, layout: Layout) -> Compiled:
    arg = compile_expression(node.arg, layout)
    element = compile_expression(node.element, {_ELEMENT: 0})

    def cast(row: Any, ctx: ExecContext) -> Any:
        value = arg(row, ctx)
        if value is None:
            return None
        return Array(tuple(element((e,), ctx) for e in value.elements), value.dims, value.lower)

    return cast


@compiles(tree.ArrayExpr)
def _array(node: tree.ArrayExpr, layout: Layout) -> Compiled:
    elements = [compile_expression(element, layout) for element in node.elements]
    if not node.nested:

        def flat(row: Any, ctx: ExecContext) -> Array:
            values = tuple([e(row, ctx) for e in elements])
            return Array(values, (len(values),), (1,)) if values else Array((), (), ())

        return flat

    def nested(row: Any, ctx: ExecContext) -> Array:
        parts = [p for p in (e(row, ctx) for e in elements) if p is not None]
        if not parts:
            return Array((), (), ())
        if len(parts) != len(elements) or any(p.dims != parts[0].dims for p in parts):
            raise QueryError("multidimensional arrays must have array expressions with matching dimensions", "2202E")
        if not parts[0].dims:
            return Array((), (), ())
        flat_elements = tuple(e for p in parts for e in p.elements)
        return Array(flat_elements, (len(parts), *parts[0].dims), (1, *parts[0].lower))

    return nested


@compiles(tree.RowExpr)
def _row(node: tree.RowExpr, layout: Layout) -> Compiled:
    args = [compile_expression(argument, layout) for argument in node.args]
    return lambda row, ctx: tuple([a(row, ctx) for a in args])


@compiles(tree.FieldSelect)
def _field(node: tree.FieldSelect, layout: Layout) -> Compiled:
    arg, offset = compile_expression(node.arg, layout), node.offset

    def select(row: Any, ctx: ExecContext) -> Any:
        record = arg(row, ctx)
        return None if record is None else record[offset]

    return select


@compiles(tree.Subscript)
def _subscript(node: tree.Subscript, layout: Layout) -> Compiled:
    arg = compile_expression(node.arg, layout)
    bounds = [
        (None if low is None else compile_expression(low, layout), None if high is None else compile_expression(high, layout))
        for low, high in node.subscripts
    ]
    if node.arg.type == oids.JSONB:
        if node.is_slice:
            raise unsupported("a slice of jsonb")
        return _jsonb(arg, [index for _, index in bounds if index is not None])
    is_slice = node.is_slice

    def subscript(row: Any, ctx: ExecContext) -> Any:
        value = arg(row, ctx)
        if value is None:
            return None
        evaluated = [
            (None if low is None else low(row, ctx), None if high is None else high(row, ctx)) for low, high in bounds
        ]
        if is_slice:
            given = [(low is None or a is not None) and (high is None or b is not None)
                     for (low, high), (a, b) in zip(bounds, evaluated, strict=True)]  # fmt: skip
            return array.slice_array(value, evaluated) if all(given) else None
        indexes = [b for _, b in evaluated]
        return None if None in indexes else array.element_at(value, indexes)

    return subscript


def _jsonb(arg: Compiled, keys: list[Compiled]) -> Compiled:
    def subscript(row: Any, ctx: ExecContext) -> Any:
        value = arg(row, ctx)
        for key in keys:
            step = key(row, ctx)
            if value is None or step is None:
                return None
            value = jsonb_subscript(value, step)
        return value

    return subscript


@compiles(tree.ScalarArrayOp)
def _scalar_array(node: tree.ScalarArrayOp, layout: Layout) -> Compiled:
    left = compile_expression(node.left, layout)
    item = node.left.type
    function, _, _ = function_of(node.proc, (item, item), oids.BOOL)
    use_or = node.use_or
    if isinstance(node.array, tree.ArrayExpr) and not node.array.nested:
        listed = [compile_expression(element, layout) for element in node.array.elements]

        def over_list(row: Any, ctx: ExecContext) -> Any:
            value = left(row, ctx)
            unknown = False
            for element in listed:
                other = element(row, ctx)
                if value is None or other is None:
                    unknown = True
                elif function(value, other) is use_or:
                    return use_or
            return None if unknown else not use_or

        return over_list
    compiled = compile_expression(node.array, layout)

    def over_array(row: Any, ctx: ExecContext) -> Any:
        elements = compiled(row, ctx)
        if elements is None:
            return None
        value = left(row, ctx)
        unknown = False
        for other in elements.elements:
            if value is None or other is None:
                unknown = True
            elif function(value, other) is use_or:
                return use_or
        return None if unknown else not use_or

    return over_array


@compiles(tree.RowCompare)
def _row_compare(node: tree.RowCompare, layout: Layout) -> Compiled:
    pairs = [
        (
            compile_expression(a, layout), compile_expression(b, layout),
            function_of(less, (a.type, b.type), oids.BOOL)[0], function_of(equal, (a.type, b.type), oids.BOOL)[0],
        )
        for a, b, (less, equal) in zip(node.left, node.right, node.procs, strict=True)
    ]  # fmt: skip
    wants_less = node.op in ("<", "<=")
    when_equal = node.op in ("<=", ">=")

    def compare(row: Any, ctx: ExecContext) -> Any:
        for left, right, less, equal in pairs:
            a, b = left(row, ctx), right(row, ctx)
            if a is None or b is None:
                return None
            if not equal(a, b):
                return bool(less(a, b)) is wants_less
        return when_equal

    return compare
