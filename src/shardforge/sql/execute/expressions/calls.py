"""Calls of functions and operators, and what is built of comparisons: IN lists, row comparisons, NULLIF."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql import pgdata
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import Expression
from shardforge.sql.execute.expressions.core import Function, Layout, compile_expression, compiles
from shardforge.sql.functions.registry import Implementation, implementation
from shardforge.sql.types.registry import format_type, is_array, type_by_oid
from shardforge.sql.types.values import Array


@cache
def implementation_of(
    proc: int, arg_types: tuple[int, ...] | None = None, result_type: int | None = None
) -> Implementation:
    """The Python function of a pg_proc oid, for these actual types; 0A000 when there is none."""
    row = pgdata.proc_by_oid(proc)
    assert row is not None, "the binder took the function from pg_proc"
    found = implementation(row, arg_types, result_type)
    if found is None:
        types = ", ".join(format_type(oid) for oid in row.proargtypes)
        raise unsupported(f"function {row.proname}({types})")
    return found


def is_strict(proc: int) -> bool:
    """Whether the function is NULL as soon as an argument is."""
    row = pgdata.proc_by_oid(proc)
    return row is None or row.proisstrict


@compiles(tree.Call)
def _call(expression: tree.Call, layout: Layout) -> Function:
    if expression.retset:
        raise QueryError("set-valued function called in context that cannot accept a set", "0A000")
    args = expression.args
    found = implementation_of(expression.proc, tuple(arg.type for arg in args), expression.type)
    call = found.call
    compiled = [compile_expression(arg, layout) for arg in args]
    if found.needs_context:
        return _with_context(call, compiled, strict=expression.strict)
    if not expression.strict:
        return lambda row, ctx: call(*[arg(row, ctx) for arg in compiled])
    if len(args) == 1:
        return _strict1(call, compiled[0])
    if len(args) == 2:
        return _strict2(call, args[0], args[1], compiled[0], compiled[1], layout)
    if not args:
        return lambda row, ctx: call()
    return _strict(call, compiled)


def _with_context(call: Callable[..., Any], args: list[Function], *, strict: bool) -> Function:
    if not args:
        return lambda row, ctx: call(ctx.eval)

    def contextual(row: Any, ctx: Any) -> Any:
        values = [arg(row, ctx) for arg in args]
        if strict and None in values:
            return None
        return call(ctx.eval, *values)

    return contextual


def _strict(call: Callable[..., Any], args: list[Function]) -> Function:
    def strict(row: Any, ctx: Any) -> Any:
        values = [arg(row, ctx) for arg in args]
        for value in values:
            if value is None:
                return None
        return call(*values)

    return strict


def _strict1(call: Callable[..., Any], arg: Function) -> Function:
    def strict1(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        return None if value is None else call(value)

    return strict1


def _strict2(
    call: Callable[..., Any],
    left_expression: Expression,
    right_expression: Expression,
    left: Function,
    right: Function,
    layout: Layout,
) -> Function:
    """A strict function of two arguments, with the commonest shapes spelled out."""
    offset = _offset(left_expression, layout)
    if offset is not None:
        other = _offset(right_expression, layout)
        if other is not None:
            return _column_column(call, offset, other)
        if isinstance(right_expression, tree.Const) and right_expression.value is not None:
            return _column_constant(call, offset, right_expression.value)
        if isinstance(right_expression, tree.Param):
            return _column_parameter(call, offset, right_expression.index)

    def strict2(row: Any, ctx: Any) -> Any:
        first = left(row, ctx)
        second = right(row, ctx)
        return None if first is None or second is None else call(first, second)

    return strict2


def _offset(expression: Expression, layout: Layout) -> int | None:
    while isinstance(expression, tree.Relabel):
        expression = expression.arg
    return layout.get(expression.column) if isinstance(expression, tree.ColumnRef) else None


def _column_column(call: Callable[..., Any], left: int, right: int) -> Function:
    def column_column(row: Any, ctx: Any) -> Any:
        first = row[left]
        second = row[right]
        return None if first is None or second is None else call(first, second)

    return column_column


def _column_parameter(call: Callable[..., Any], left: int, index: int) -> Function:
    def column_parameter(row: Any, ctx: Any) -> Any:
        first = row[left]
        second = ctx.params[index]
        return None if first is None or second is None else call(first, second)

    return column_parameter


def _column_constant(call: Callable[..., Any], left: int, constant: Any) -> Function:
    inline = _INLINE.get(call)
    if inline is not None:
        return inline(left, constant)

    def column_constant(row: Any, ctx: Any) -> Any:
        value = row[left]
        return None if value is None else call(value, constant)

    return column_constant


# Comparisons of a column with a constant where Python's operator is the type's: no call at all.


def _eq(at: int, constant: Any) -> Function:
    return lambda row, ctx: None if (value := row[at]) is None else value == constant


def _ne(at: int, constant: Any) -> Function:
    return lambda row, ctx: None if (value := row[at]) is None else value != constant


def _lt(at: int, constant: Any) -> Function:
    return lambda row, ctx: None if (value := row[at]) is None else value < constant


def _le(at: int, constant: Any) -> Function:
    return lambda row, ctx: None if (value := row[at]) is None else value <= constant


def _gt(at: int, constant: Any) -> Function:
    return lambda row, ctx: None if (value := row[at]) is None else value > constant


def _ge(at: int, constant: Any) -> Function:
    return lambda row, ctx: None if (value := row[at]) is None else value >= constant


_INLINE: dict[Callable[..., Any], Callable[[int, Any], Function]] = {
    operator.eq: _eq,
    operator.ne: _ne,
    operator.lt: _lt,
    operator.le: _le,
    operator.gt: _gt,
    operator.ge: _ge,
}


# ---------------------------------------------------------------- made of comparisons


@compiles(tree.DistinctTest)
def _distinct_test(expression: tree.DistinctTest, layout: Layout) -> Function:
    types = (expression.left.type, expression.right.type)
    equal = implementation_of(expression.proc, types, 16).call
    left = compile_expression(expression.left, layout)
    right = compile_expression(expression.right, layout)
    negated = expression.negated

    def distinct(row: Any, ctx: Any) -> bool:
        first = left(row, ctx)
        second = right(row, ctx)
        if first is None or second is None:
            return ((first is None) != (second is None)) is not negated
        return bool(equal(first, second)) is negated

    return distinct


@compiles(tree.NullIf)
def _null_if(expression: tree.NullIf, layout: Layout) -> Function:
    types = (expression.left.type, expression.right.type)
    equal = implementation_of(expression.proc, types, 16).call
    left = compile_expression(expression.left, layout)
    right = compile_expression(expression.right, layout)
    original = compile_expression(expression.original, layout)

    def null_if(row: Any, ctx: Any) -> Any:
        first = left(row, ctx)
        second = right(row, ctx)
        if first is not None and second is not None and equal(first, second):
            return None
        return original(row, ctx)

    return null_if


@compiles(tree.ScalarArrayOp)
def _scalar_array_op(expression: tree.ScalarArrayOp, layout: Layout) -> Function:
    array = expression.array
    element_type = element_type_of(array.type)
    found = implementation_of(expression.proc, (expression.left.type, element_type), 16)
    left = compile_expression(expression.left, layout)
    if isinstance(array, tree.ArrayExpr) and not array.nested:
        elements = array.elements
        if all(isinstance(element, tree.Const) for element in elements):
            constants = [element.value for element in elements if isinstance(element, tree.Const)]
            if found.call is (operator.eq if expression.use_or else operator.ne):
                return _member(left, constants, use_or=expression.use_or)
            return _any_of(found.call, left, lambda row, ctx: constants, expression)
        functions = [compile_expression(element, layout) for element in elements]
        known = all(isinstance(element, (tree.Const, tree.Param)) for element in elements)
        if known and found.call is (operator.eq if expression.use_or else operator.ne):
            return _given_member(left, functions, use_or=expression.use_or)
        return _any_of(
            found.call, left, lambda row, ctx: [f(row, ctx) for f in functions], expression
        )
    whole = compile_expression(array, layout)

    def items(row: Any, ctx: Any) -> Any:
        value = whole(row, ctx)
        return None if value is None else _elements(value)

    return _any_of(found.call, left, items, expression)


def element_type_of(array_type: int) -> int:
    """The element type of an array type."""
    return type_by_oid(array_type).element if is_array(array_type) else array_type


def _elements(value: Any) -> Any:
    return value.elements if isinstance(value, Array) else value


def _member(left: Function, constants: list[Any], *, use_or: bool) -> Function:
    """IN and NOT IN over constants: a set. NULL when only a NULL could have decided."""
    members = frozenset(constants)
    otherwise = None if None in members else not use_or
    members -= {None}

    def member(row: Any, ctx: Any) -> Any:
        value = left(row, ctx)
        if value is None:
            return None
        return use_or if value in members else otherwise

    return member


def _given_member(left: Function, functions: list[Function], *, use_or: bool) -> Function:
    """The same over parameters: a set for each statement's parameters."""
    given: Any = None
    member: Function = left

    def known_member(row: Any, ctx: Any) -> Any:
        nonlocal given, member
        if ctx.params is not given:
            items = [function((), ctx) for function in functions]
            given, member = ctx.params, _member(left, items, use_or=use_or)
        return member(row, ctx)

    return known_member


def _any_of(
    call: Callable[..., Any], left: Function, items: Function, expression: tree.ScalarArrayOp
) -> Function:
    """`call(left, item)` true for some item (use_or), or for each."""
    use_or = expression.use_or
    strict = is_strict(expression.proc)

    def any_of(row: Any, ctx: Any) -> Any:
        value = left(row, ctx)
        elements = items(row, ctx)
        if elements is None:
            return None
        if not elements:
            return not use_or
        if value is None and strict:
            return None
        result: bool | None = not use_or
        for item in elements:
            found = None if item is None and strict else call(value, item)
            if found is None:
                result = None
            elif bool(found) is use_or:
                return use_or
        return result

    return any_of


@compiles(tree.RowCompare)
def _row_compare(expression: tree.RowCompare, layout: Layout) -> Function:
    pairs = []
    for left, right, (less, equal) in zip(
        expression.left, expression.right, expression.procs, strict=True
    ):
        types = (left.type, right.type)
        pairs.append(
            (
                compile_expression(left, layout),
                compile_expression(right, layout),
                implementation_of(less, types, 16).call,
                implementation_of(equal, types, 16).call,
            )
        )
    wants_less = expression.op in ("<", "<=")
    on_equal = expression.op in ("<=", ">=")

    def compare(row: Any, ctx: Any) -> Any:
        for left, right, less, equal in pairs:
            first = left(row, ctx)
            second = right(row, ctx)
            if first is None or second is None:
                return None
            if not equal(first, second):
                return bool(less(first, second)) is wants_less
        return on_equal

    return compare
