"""Execution of plans. `compile_plan(plan)` gives an `Executable`; an `ExecContext` is what a session runs it with."""

from shardforge.sql.execute.context import ExecContext
from shardforge.sql.execute.executable import Executable, Rows, compile_plan

__all__ = ["ExecContext", "Executable", "Rows", "compile_plan"]
