"""CREATE INDEX CONCURRENTLY as a session runs it: two transactions one after the other, so none may be open before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardforge.errors import TransactionError
from shardforge.sql.ddl import concurrently
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.session.ddl_context import begin_ddl

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


async def create_index(session: Session, node: Node) -> str:
    """Declare the index, then fill it. Raises: 25001 where anything came before in the transaction; 23505."""
    if session.in_block or not session.settled:
        raise TransactionError(
            "CREATE INDEX CONCURRENTLY cannot run inside a transaction block", "25001"
        )
    declared = await concurrently.declare(Ddl(begin_ddl(session)), node)
    await session.commit()
    if declared is not None:
        await concurrently.complete(Ddl(begin_ddl(session)), *declared)
    return "CREATE INDEX"
