"""EXPLAIN and EXPLAIN ANALYZE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.catalog.typenames import visible_types
from shardforge.sql.session.outcome import Outcome

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

Node = dict[str, Any]
_OPTIONS = {
    "analyze",
    "costs",
    "verbose",
    "buffers",
    "timing",
    "summary",
    "settings",
    "wal",
    "format",
    "generic_plan",
}


def _options(node: Node) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in node.get("options", []):
        element = item["DefElem"]
        name = element["defname"]
        if name not in _OPTIONS:
            raise QueryError(f'unrecognized EXPLAIN option "{name}"', "42601")
        argument = element.get("arg", {})
        value = argument.get(
            "String", argument.get("Boolean", argument.get("Integer", {"sval": "true"}))
        )
        options[name] = str(
            value.get("sval", value.get("boolval", value.get("ival", False)))
        ).lower()
    return options


async def run(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    """The plan of a statement as lines; with ANALYZE it runs, and each node says what it did."""
    from shardforge.sql.session.utility import text_columns  # utility's table names this module

    options = _options(node)
    form = options.get("format", "text")
    if form not in ("text", "json"):
        raise unsupported(f"EXPLAIN in the format {form}")
    inner = session.prepare_parsed(
        replace(prepared.statement, node=node["query"]), prepared.parameter_types
    )
    if inner.executable is None:
        lines = ["Utility Statement"]
    elif options.get("analyze", "false") in ("true", "on", "1"):
        lines = await _analyze(session, inner, params)
    else:
        lines = inner.executable.plan.explain()
    lines = [visible_types(line, session.catalog, session.search_path) for line in lines]
    columns = text_columns("QUERY PLAN")
    if form == "json":
        return Outcome(
            "EXPLAIN", columns, rows=[(json.dumps([{"Plan": {"Lines": lines}}], indent=2),)]
        )
    return Outcome("EXPLAIN", columns, rows=[(line,) for line in lines])


async def _analyze(session: Session, inner: Prepared, params: Sequence[Any]) -> list[str]:
    assert inner.executable is not None, "checked by the caller"
    context, past = session.context(), session.past
    transaction = context.transaction = session.transaction()
    if past is None:
        transaction.begin_statement()
    else:
        past.check(inner)
    inner = await session.made_ready(inner, transaction)
    if past is not None:
        inner = await past.begin_statement(transaction, inner)
    executable = inner.executable
    assert executable is not None, "the same statement"
    begun = session.instance.clock.monotonic_ns()
    lines = await executable.analyze(context, params)
    elapsed_ms = (session.instance.clock.monotonic_ns() - begun) / 1e6
    return [*lines, f"Execution Time: {elapsed_ms:.3f} ms"]
