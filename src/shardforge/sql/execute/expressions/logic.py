"""Three-valued logic, tests for NULL and truth, and the conditional expressions."""

from __future__ import annotations

from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.execute.expressions.core import (
    Function,
    Layout,
    compile_expression,
    compile_optional,
    compiles,
)
from shardforge.sql.types.registry import sort_key


@compiles(tree.BoolOp)
def _bool_op(expression: tree.BoolOp, layout: Layout) -> Function:
    args = [compile_expression(arg, layout) for arg in expression.args]
    if expression.op == "not":
        return _not(args[0])
    if len(args) == 2:
        return (_and2 if expression.op == "and" else _or2)(*args)
    return (_and if expression.op == "and" else _or)(tuple(args))


def _not(arg: Function) -> Function:
    def negate(row: Any, ctx: Any) -> Any:
        value = arg(row, ctx)
        return None if value is None else not value

    return negate


def _and2(left: Function, right: Function) -> Function:
    def both(row: Any, ctx: Any) -> Any:
        first = left(row, ctx)
        if first is False:
            return False
        second = right(row, ctx)
        if second is False:
            return False
        return None if first is None or second is None else True

    return both


def _or2(left: Function, right: Function) -> Function:
    def either(row: Any, ctx: Any) -> Any:
        first = left(row, ctx)
        if first:
            return True
        second = right(row, ctx)
        if second:
            return True
        return None if first is None or second is None else False

    return either


def _and(args: tuple[Function, ...]) -> Function:
    def every(row: Any, ctx: Any) -> Any:
        result: bool | None = True
        for arg in args:
            value = arg(row, ctx)
            if value is None:
                result = None
            elif not value:
                return False
        return result

    return every


def _or(args: tuple[Function, ...]) -> Function:
    def some(row: Any, ctx: Any) -> Any:
        result: bool | None = False
        for arg in args:
            value = arg(row, ctx)
            if value:
                return True
            if value is None:
                result = None
        return result

    return some


# ---------------------------------------------------------------- tests


@compiles(tree.NullTest)
def _null_test(expression: tree.NullTest, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    negated = expression.negated
    if expression.row:

        def row_test(row: Any, ctx: Any) -> bool:
            value = arg(row, ctx)
            if value is None:
                return not negated
            return all((item is not None) is negated for item in value)

        return row_test
    if negated:
        return lambda row, ctx: arg(row, ctx) is not None
    return lambda row, ctx: arg(row, ctx) is None


@compiles(tree.BooleanTest)
def _boolean_test(expression: tree.BooleanTest, layout: Layout) -> Function:
    arg = compile_expression(expression.arg, layout)
    wanted = {"true": True, "false": False, "unknown": None}[expression.test]
    if expression.negated:
        return lambda row, ctx: arg(row, ctx) is not wanted
    return lambda row, ctx: arg(row, ctx) is wanted


# ---------------------------------------------------------------- conditional


@compiles(tree.Case)
def _case(expression: tree.Case, layout: Layout) -> Function:
    whens = [
        (compile_expression(when, layout), compile_expression(then, layout))
        for when, then in expression.whens
    ]
    otherwise = compile_optional(expression.otherwise, layout)

    def case(row: Any, ctx: Any) -> Any:
        for when, then in whens:
            if when(row, ctx):
                return then(row, ctx)
        return None if otherwise is None else otherwise(row, ctx)

    return case


@compiles(tree.Coalesce)
def _coalesce(expression: tree.Coalesce, layout: Layout) -> Function:
    args = [compile_expression(arg, layout) for arg in expression.args]

    def coalesce(row: Any, ctx: Any) -> Any:
        for arg in args:
            value = arg(row, ctx)
            if value is not None:
                return value
        return None

    return coalesce


@compiles(tree.MinMax)
def _min_max(expression: tree.MinMax, layout: Layout) -> Function:
    args = [compile_expression(arg, layout) for arg in expression.args]
    pick = max if expression.greatest else min
    key = sort_key(expression.type)

    def min_max(row: Any, ctx: Any) -> Any:
        values = [value for arg in args if (value := arg(row, ctx)) is not None]
        return pick(values, key=key) if values else None

    return min_max
