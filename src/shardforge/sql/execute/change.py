"""Which operator carries out which change."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from shardforge.sql.execute.insert import Insert
from shardforge.sql.execute.update import Delete, Update
from shardforge.sql.plan import nodes

if TYPE_CHECKING:
    from shardforge.sql.execute.compiler import Compiler

ChangeOperator: TypeAlias = Insert | Update | Delete


def compile_change(node: nodes.Modification, compiler: Compiler) -> ChangeOperator:
    """The operator of an INSERT, UPDATE or DELETE."""
    if isinstance(node, nodes.Insert):
        return Insert(node, compiler)
    if isinstance(node, nodes.Update):
        return Update(node, compiler)
    return Delete(node, compiler)
