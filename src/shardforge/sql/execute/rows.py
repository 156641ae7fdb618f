"""Functions over many rows at once, so that the loop is here and not around a call.

Calls that may have to wait (nextval with nothing in memory, pg_sleep) raise `MustWaitError` amid an expression;
`evaluated` goes on with the row that waited, so the rows before it keep their values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import Expression
from shardforge.sql.execute.context import Row, Run
from shardforge.sql.execute.expressions import Function, Layout, compile_expression
from shardforge.sql.functions.waiting import waited
from shardforge.sql.types.registry import sort_key

RowsFunction: TypeAlias = Callable[[list[Row], Any], list[Row]]


def may_wait(values: Any) -> bool:
    """Whether evaluating may raise MustWaitError."""
    return any(isinstance(node, tree.Call) and node.volatile == "v" for node in walk.nodes(values))


def filter_function(condition: Expression, layout: Layout) -> RowsFunction:
    """Rows -> those for which the condition is true."""
    test = compile_expression(condition, layout)
    return lambda rows, ctx: [row for row in rows if test(row, ctx)]


def row_function(outputs: Sequence[Expression], layout: Layout) -> Function:
    """(row, ctx) -> the tuple of the outputs' values."""
    offsets = [_offset(output, layout) for output in outputs]
    if offsets and None not in offsets:
        picked = [offset for offset in offsets if offset is not None]
        if len(picked) == 1:
            only = picked[0]
            return lambda row, ctx: (row[only],)
        pick = itemgetter(*picked)
        return lambda row, ctx: pick(row)
    functions = [compile_expression(output, layout) for output in outputs]
    if len(functions) == 1:
        first = functions[0]
        return lambda row, ctx: (first(row, ctx),)
    return lambda row, ctx: tuple([function(row, ctx) for function in functions])


def project_function(outputs: Sequence[Expression], layout: Layout) -> RowsFunction:
    """Rows -> rows of the outputs' values."""
    offsets = [_offset(output, layout) for output in outputs]
    if len(offsets) > 1 and None not in offsets:
        pick = itemgetter(*[offset for offset in offsets if offset is not None])
        return lambda rows, ctx: list(map(pick, rows))
    functions = [compile_expression(output, layout) for output in outputs]
    if len(functions) == 1:
        first = functions[0]
        return lambda rows, ctx: [(first(row, ctx),) for row in rows]
    if len(functions) == 2:
        first, second = functions
        return lambda rows, ctx: [(first(row, ctx), second(row, ctx)) for row in rows]
    return lambda rows, ctx: [tuple([function(row, ctx) for function in functions]) for row in rows]


def _offset(expression: Expression, layout: Layout) -> int | None:
    while isinstance(expression, tree.Relabel):
        expression = expression.arg
    return layout.get(expression.column) if isinstance(expression, tree.ColumnRef) else None


async def evaluated(function: Function, rows: Sequence[Row], run: Run) -> list[Any]:
    """`function` of each row, waiting where it must."""
    return [await evaluated_once(function, row, run) for row in rows]


async def evaluated_once(function: Function, row: Row, run: Run) -> Any:
    """`function` of one row, waiting where it must."""
    return await waited(lambda: function(row, run), run.eval)


async def kept(test: Function, rows: Sequence[Row], run: Run) -> list[Row]:
    """The rows for which the condition is true, waiting where it must."""
    wanted = await evaluated(test, rows, run)
    return [row for row, true in zip(rows, wanted, strict=True) if true]


def key_function(
    keys: Sequence[Expression], layout: Layout
) -> Callable[[Row, Any], tuple[Any, ...]]:
    """(row, ctx) -> a hashable tuple, equal when the keys' values are equal in SQL (NULLs included)."""
    functions = []
    for key in keys:
        function, transform = compile_expression(key, layout), sort_key(key.type)
        functions.append(function if transform is None else _transformed(function, transform))
    if len(functions) == 1:
        first = functions[0]
        return lambda row, ctx: (first(row, ctx),)
    return lambda row, ctx: tuple([function(row, ctx) for function in functions])


def _transformed(function: Function, transform: Callable[[Any], Any]) -> Function:
    def transformed(row: Any, ctx: Any) -> Any:
        value = function(row, ctx)
        return None if value is None else transform(value)

    return transformed


def join_key_function(keys: Sequence[Expression], layout: Layout) -> Function:
    """(row, ctx) -> a hashable key, None when a part is NULL: such a row joins nothing."""
    tuple_of = key_function(keys, layout)
    if len(keys) == 1:
        return lambda row, ctx: tuple_of(row, ctx)[0]

    def join_key(row: Any, ctx: Any) -> Any:
        key = tuple_of(row, ctx)
        return None if None in key else key

    return join_key


def row_key_function(types: Sequence[int]) -> Callable[[Row], tuple[Any, ...]] | None:
    """Row -> a hashable key of the whole row by its columns' types; None when the row itself is one."""
    transforms = [sort_key(oid) if oid else None for oid in types]
    if not any(transforms):
        return None

    def row_key(row: Row) -> tuple[Any, ...]:
        return tuple(
            [
                value if transform is None or value is None else transform(value)
                for value, transform in zip(row, transforms, strict=True)
            ]
        )

    return row_key
