"""Casts, arrays, rows and what is taken out of them."""

from __future__ import annotations

from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.execute.expressions.core import (
    Function,
    Layout,
    compile_expression,
    compile_optional,
    compiles,
)
from shardforge.sql.types import oids
from shardforge.sql.types.registry import (
    coercion,
    input_function,
    output_function,
    type_by_oid,
)
from shardforge.sql.types.values import Array, Jsonb, Record


@compiles(tree.IoCast)
def _io_cast(expression: tree.IoCast, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    source, target = expression.arg.type, expression.type

    def cast(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        if value is None:
            return None
        settings = ctx.eval.settings
        return input_function(target, settings)(output_function(source, settings)(value))

    return cast


@compiles(tree.ArrayCast)
def _array_cast(expression: tree.ArrayCast, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    element = compile_expression(expression.element, {})

    def cast(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        if value is None:
            return None
        items = tuple([element((item,), ctx) for item in value.elements])
        return Array(items, value.dims, value.lower)

    return cast


@compiles(tree.LengthCoercion)
def _length_coercion(expression: tree.LengthCoercion, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    apply = coercion(expression.type, expression.typmod, expression.explicit)
    if apply is None:
        return arg

    def coerce(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        return None if value is None else apply(value)

    return coerce


@compiles(tree.ArrayExpr)
def _array(expression: tree.ArrayExpr, layout: Layout) -> Function:
    elements = [compile_expression(element, layout) for element in expression.elements]
    if not expression.nested:
        return lambda row, ctx: Array(tuple([element(row, ctx) for element in elements]))
    return lambda row, ctx: _nested_array([element(row, ctx) for element in elements])


def _nested_array(items: list[Any]) -> Array:
    """One dimension more; the parts must agree in shape, and empty ones vanish."""
    arrays = [item for item in items if item is not None and item.dims]
    if not arrays:
        return Array(())
    if len(arrays) != len(items) or any(
        (a.dims, a.lower) != (arrays[0].dims, arrays[0].lower) for a in arrays
    ):
        raise QueryError(
            "multidimensional arrays must have array expressions with matching dimensions", "2202E"
        )
    first = arrays[0]
    if len(first.dims) >= 6:
        raise QueryError("number of array dimensions (7) exceeds the maximum allowed (6)", "54000")
    elements = tuple([element for array in arrays for element in array.elements])
    return Array(elements, (len(arrays), *first.dims), (1, *first.lower))


@compiles(tree.RowExpr)
def _row(expression: tree.RowExpr, layout: Layout) -> Function:
    args = [compile_expression(arg, layout) for arg in expression.args]
    types = tuple(arg.type for arg in expression.args)
    names = expression.names
    return lambda row, ctx: Record([arg(row, ctx) for arg in args], types, names)


@compiles(tree.FieldSelect)
def _field(expression: tree.FieldSelect, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    offset = expression.offset

    def field(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        return None if value is None else value[offset]

    return field


# ---------------------------------------------------------------- subscripts


@compiles(tree.Subscript)
def _subscript(expression: tree.Subscript, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    pairs = [
        (compile_optional(lower, layout), compile_optional(upper, layout))
        for lower, upper in expression.subscripts
    ]
    if expression.arg.type == oids.JSONB:
        return _jsonb_subscript(arg, [upper for _, upper in pairs if upper is not None])
    if expression.is_slice:
        return _slice(arg, pairs)
    indexes = [upper for _, upper in pairs if upper is not None]
    is_vector = type_by_oid(expression.arg.type).name in ("int2vector", "oidvector")

    def element(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        at = [index(row, ctx) for index in indexes]
        if value is None or None in at:
            return None
        return _element(value, at, is_vector=is_vector)

    return element


def _element(value: Any, at: list[int], *, is_vector: bool) -> Any:
    if not isinstance(value, Array):
        assert is_vector, "only vectors are plain sequences"
        return value[at[0]] if 0 <= at[0] < len(value) else None
    if len(at) != len(value.dims):
        return None
    offset = 0
    for index, size, lower in zip(at, value.dims, value.lower, strict=True):
        if not lower <= index < lower + size:
            return None
        offset = offset * size + index - lower
    return value.elements[offset]


def _slice(arg: Function, pairs: list[tuple[Function | None, Function | None]]) -> Function:
    """array[a:b]; a missing bound is the array's own, a plain index i among slices means 1:i."""

    def cut(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        bounds = []
        for lower, upper in pairs:
            low = None if lower is None else lower(row, ctx)
            high = None if upper is None else upper(row, ctx)
            if (lower is not None and low is None) or (upper is not None and high is None):
                return None
            bounds.append((low, high))
        return None if value is None else _cut(value, bounds)

    return cut


def _cut(value: Array, bounds: list[tuple[int | None, int | None]]) -> Array:
    if len(bounds) > len(value.dims):
        return Array(())
    ranges = []
    for place, (size, lower) in enumerate(zip(value.dims, value.lower, strict=True)):
        low, high = bounds[place] if place < len(bounds) else (None, None)
        first = lower if low is None else max(low, lower)
        last = lower + size - 1 if high is None else min(high, lower + size - 1)
        if first > last:
            return Array(())
        ranges.append(range(first - lower, last - lower + 1))
    offsets = [0]
    for span, size in zip(ranges, value.dims, strict=True):
        offsets = [offset * size + step for offset in offsets for step in span]
    dims = tuple(len(span) for span in ranges)
    return Array(tuple([value.elements[offset] for offset in offsets]), dims)


def _jsonb_subscript(arg: Function, keys: list[Function]) -> Function:
    def fetch(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        path = [key(row, ctx) for key in keys]
        if value is None or None in path:
            return None
        return _fetch(value.value, path)

    return fetch


def _fetch(node: Any, path: list[Any]) -> Jsonb | None:
    for key in path:
        if isinstance(node, dict):
            if str(key) not in node:
                return None
            node = node[str(key)]
        elif isinstance(node, list):
            try:
                index = int(key)
            except ValueError:
                return None
            if not -len(node) <= index < len(node):
                return None
            node = node[index]
        else:
            return None
    return Jsonb(node)


@compiles(tree.Subquery)
def _subquery(expression: tree.Subquery, layout: Layout) -> Function:
    raise unsupported("a subquery in this place")
