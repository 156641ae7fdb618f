"""PREPARE, EXECUTE and DEALLOCATE; DECLARE, FETCH, MOVE and CLOSE."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError, TransactionError
from shardforge.sql.bind import BindEnvironment, bind_scalar, resolve_type_name
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.session.cursors import Cursor, RowSource
from shardforge.sql.session.outcome import Outcome, Row
from shardforge.sql.session.prepared import Prepared
from shardforge.sql.session.statements import effective_search_path

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session

Node = dict[str, Any]
FETCH_ALL = 2**63 - 1


def find(session: Session, name: str) -> Prepared:
    """The prepared statement of that name; 26000 when there is none."""
    found = session.prepared.get(name)
    if found is None:
        raise QueryError(f'prepared statement "{name}" does not exist', "26000")
    return found


async def prepare(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """PREPARE name (types) AS statement."""
    name = node["name"]
    if name in session.prepared:
        raise QueryError(f'prepared statement "{name}" already exists', "42P05")
    environment = _environment(session, prepared.text)
    types = [
        resolve_type_name(item["TypeName"], environment)[0] for item in node.get("argtypes", [])
    ]
    inner = replace(prepared.statement, node=node["query"])
    session.prepared[name] = replace(session.prepare_parsed(inner, types), by_sql=True)
    return Outcome("PREPARE")


def _environment(session: Session, text: str) -> BindEnvironment:
    return BindEnvironment(
        catalog=session.catalog,
        search_path=effective_search_path(session.settings, session.user),
        settings=session.settings,
        parameter_types=[],
        text=text,
    )


async def execute(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """EXECUTE name (values)."""
    target = session.refreshed(find(session, node["name"]))
    arguments = node.get("params", [])
    if len(arguments) != len(target.parameter_types):
        raise QueryError(
            f'wrong number of parameters for prepared statement "{node["name"]}"', "42601",
            detail=f"Expected {len(target.parameter_types)} parameters but got {len(arguments)}.",
        )  # fmt: skip
    environment = _environment(session, prepared.text)
    context = session.context()
    values = []
    for argument, type_oid in zip(arguments, target.parameter_types, strict=True):
        expression = bind_scalar(argument, environment, target_type=type_oid)
        values.append(compile_expression(expression, {})((), context))
    return await session.run(target, values)


async def deallocate(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """DEALLOCATE name | ALL."""
    name = node.get("name")
    if name is None:
        session.prepared.clear()
        return Outcome("DEALLOCATE ALL")
    find(session, name)
    del session.prepared[name]
    return Outcome("DEALLOCATE")


# ---------------------------------------------------------------- cursors

CURSOR_SCROLL, CURSOR_NO_SCROLL, CURSOR_HOLD = 0x2, 0x4, 0x20


async def declare(
    session: Session, node: Node, prepared: Prepared, params: Sequence[Any]
) -> Outcome:
    """DECLARE name CURSOR FOR query."""
    name, options = node["portalname"], node.get("options", 0)
    hold = bool(options & CURSOR_HOLD)
    if not hold and not session.in_block:
        raise TransactionError("DECLARE CURSOR can only be used in transaction blocks", "25P01")
    if name in session.cursors:
        raise QueryError(f'cursor "{name}" already exists', "42P03")
    inner = session.prepare_parsed(
        replace(prepared.statement, node=node["query"]), prepared.parameter_types
    )
    outcome = await session.run(inner, params)
    batches = outcome.batches or _one_batch(outcome.rows or [])
    source = RowSource(inner.columns or (), batches)
    session.cursors[name] = Cursor(
        name, source, scroll=not options & CURSOR_NO_SCROLL, hold=hold, statement=prepared.text
    )
    return Outcome("DECLARE CURSOR")


async def _one_batch(rows: list[Row]) -> AsyncIterator[list[Row]]:
    yield rows


def _cursor(session: Session, name: str) -> Cursor:
    found = session.cursors.get(name)
    if found is None:
        raise QueryError(f'cursor "{name}" does not exist', "34000")
    return found


async def fetch(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    """FETCH and MOVE, in every direction."""
    cursor = _cursor(session, node["portalname"])
    count = int(node.get("howMany", 0))
    direction = node.get("direction", "FETCH_FORWARD")
    amount = None if abs(count) >= FETCH_ALL else abs(count)
    if direction == "FETCH_ABSOLUTE":
        rows = await cursor.absolute(count)
    elif direction == "FETCH_RELATIVE":
        rows = await cursor.relative(count)
    elif (direction == "FETCH_BACKWARD") != (count < 0):
        rows = await cursor.backward(amount)
    elif count == 0:
        rows = await cursor.relative(0)
    else:
        rows = await cursor.forward(amount)
    if node.get("ismove"):
        return Outcome(f"MOVE {len(rows)}")
    return Outcome(f"FETCH {len(rows)}", cursor.columns, rows=rows)


async def close(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    """CLOSE name | ALL."""
    name = node.get("portalname")
    if name is None:
        for cursor in session.cursors.values():
            await cursor.close()
        session.cursors.clear()
        return Outcome("CLOSE CURSOR ALL")
    await _cursor(session, name).close()
    del session.cursors[name]
    return Outcome("CLOSE CURSOR")
