"""Expressions as Python functions: `compile_expression(expression, layout)` gives `f(row, ctx)`.

`row` is a tuple; `layout` says where in it each column id is. A column that is not in the layout belongs to an
enclosing query and is read from `ctx.outer`. `ctx` also has `params` and `eval` (the EvalContext): an `ExecContext`
or a `Run`. NULL is None. Expressions are compiled once a plan; what is common (column, constant, parameter, strict
function of one or two arguments) has a function of its own, because a call costs more than most expressions do.
Subqueries are not here: the planner replaces them by columns.

Invariant: all arguments are evaluated before a strict function is skipped for a NULL, as in PostgreSQL; CASE, COALESCE,
AND and OR evaluate only what they need.
"""

from shardforge.sql.execute.expressions import array_assignment, calls, logic, values
from shardforge.sql.execute.expressions.core import (
    Failure,
    Function,
    Layout,
    LazyColumn,
    compile_expression,
    compile_optional,
    layout_of,
)

__all__ = [
    "Failure",
    "Function",
    "Layout",
    "LazyColumn",
    "array_assignment",
    "calls",
    "compile_expression",
    "compile_optional",
    "layout_of",
    "logic",
    "values",
]
