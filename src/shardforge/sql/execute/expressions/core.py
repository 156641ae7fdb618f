"""The dispatch of the expression compiler, and its leaves. See the package's docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression

Layout: TypeAlias = Mapping[ColumnId, int]
Function: TypeAlias = Callable[[Any, Any], Any]
Compiler: TypeAlias = Callable[[Any, Layout], Function]
C = TypeVar("C", bound=Compiler)

_COMPILERS: dict[type, Compiler] = {}


def compiles(kind: type) -> Callable[[C], C]:
    """Register the decorated function as the compiler of one kind of expression."""

    def register(compiler: C) -> C:
        _COMPILERS[kind] = compiler
        return compiler

    return register


@dataclass(frozen=True, slots=True)
class Failure:
    """The value of a subquery that failed where evaluating it may turn out to be unnecessary."""

    error: QueryError


@dataclass(frozen=True, slots=True)
class LazyColumn:
    """A column made from a subquery inside CASE, COALESCE, AND or OR: a `Failure` in it is raised when it is used."""

    ref: tree.ColumnRef
    type: int
    typmod: int = -1


def compile_expression(expression: Expression, layout: Layout) -> Function:
    """`expression` as a function of a row and a context."""
    compiler = _COMPILERS.get(type(expression))
    if compiler is None:
        raise unsupported(f"an expression of kind {type(expression).__name__}")
    return compiler(expression, layout)


def compile_optional(expression: Expression | None, layout: Layout) -> Function | None:
    """The same, or None for no expression."""
    return None if expression is None else compile_expression(expression, layout)


def layout_of(columns: tuple[ColumnId, ...]) -> dict[ColumnId, int]:
    """Where each of a node's columns is in its rows."""
    return {column: offset for offset, column in enumerate(columns)}


@compiles(tree.Const)
def _const(expression: tree.Const, layout: Layout) -> Function:
    value = expression.value
    return lambda row, ctx: value


@compiles(tree.Param)
def _param(expression: tree.Param, layout: Layout) -> Function:
    index = expression.index
    return lambda row, ctx: ctx.params[index]


@compiles(tree.ColumnRef)
def _column(expression: tree.ColumnRef, layout: Layout) -> Function:
    column = expression.column
    offset = layout.get(column)
    if offset is None:
        return lambda row, ctx: ctx.outer[column]
    return lambda row, ctx: row[offset]


@compiles(LazyColumn)
def _lazy_column(expression: LazyColumn, layout: Layout) -> Function:
    read = _column(expression.ref, layout)

    def checked(row: Any, ctx: Any) -> Any:
        value = read(row, ctx)
        if type(value) is Failure:
            raise value.error
        return value

    return checked


@compiles(tree.Placeholder)
def _placeholder(expression: tree.Placeholder, layout: Layout) -> Function:
    return lambda row, ctx: row[0]


@compiles(tree.Relabel)
def _relabel(expression: tree.Relabel, layout: Layout) -> Function:
    return compile_expression(expression.arg, layout)
