"""RETURNING: the changed rows, seen through expressions over their columns and over the source's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import Row, Run
from shardforge.sql.execute.operators import GivenRows, Operator
from shardforge.sql.execute.rows import evaluated, may_wait, project_function, row_function
from shardforge.sql.execute.rowwriter import picker
from shardforge.sql.plan import nodes

if TYPE_CHECKING:
    from shardforge.sql.execute.compiler import Compiler


class Returning:
    """Makes result rows from (stored row + source row) tuples, laid out by `layout`."""

    def __init__(
        self, node: nodes.Modification, layout: Mapping[ColumnId, int], compiler: Compiler
    ) -> None:
        expressions: Sequence[Expression] = node.statement.returning_expressions
        self._plan: Operator | None = None
        self._may_wait = may_wait(tuple(expressions))
        if node.returning is not None:
            self._given = GivenRows(node.given)
            self._pick = picker([layout[column] for column in node.given])
            self._plan = compiler.compile_over(node.returning, self._given)
        else:
            self._project = project_function(expressions, layout)
            self._row = row_function(expressions, layout)

    async def rows(self, combined: list[Row], run: Run) -> list[Row]:
        """The result rows."""
        if self._plan is not None:
            run.memo[self._given] = [tuple(self._pick(row)) for row in combined]
            return await self._plan.all_rows(run)
        if self._may_wait:
            return await evaluated(self._row, combined, run)
        return self._project(combined, run)


def result_layout(
    row: Mapping[int, ColumnId], position: Mapping[int, int], source: Sequence[ColumnId]
) -> dict[ColumnId, int]:
    """Where columns are in (stored row + source row); the stored row's come first."""
    width = len(position)
    layout = {column: width + offset for offset, column in enumerate(source)}
    layout.update({row[attnum]: offset for attnum, offset in position.items() if attnum in row})
    return layout
