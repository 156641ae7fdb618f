"""SET CONSTRAINTS: when deferrable constraints are checked in this transaction.

Source: PostgreSQL 15, AfterTriggerSetState in src/backend/commands/trigger.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shardforge.errors import QueryError
from shardforge.sql.catalog.descriptors import Check, ForeignKey, Index, Table
from shardforge.sql.session.outcome import Outcome

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session

Node = dict[str, Any]


async def run(session: Session, node: Node, prepared: Prepared, params: Sequence[Any]) -> Outcome:
    """SET CONSTRAINTS { ALL | name, ... } { DEFERRED | IMMEDIATE }; IMMEDIATE checks at once what was deferred."""
    if not session.in_block:
        session.notice("WARNING", "25P01", "SET CONSTRAINTS can only be used in transaction blocks")
    deferred = bool(node.get("deferred"))
    context = session.context()
    if "constraints" not in node:
        chosen = None
        context.deferral.set_all(deferred=deferred)
    else:
        chosen = set()
        for item in node["constraints"]:
            chosen |= _deferrable(session, item["RangeVar"], deferred=deferred)
        context.deferral.set_some(chosen, deferred=deferred)
    if not deferred:
        await context.check_deferred_now(chosen)
    return Outcome("SET CONSTRAINTS")


def _deferrable(session: Session, name: Node, *, deferred: bool) -> set[int]:
    """Oids of the deferrable constraints of that name in the first schema that has any."""
    if name.get("catalogname", session.database) != session.database:
        shown = ".".join(name[part] for part in ("catalogname", "schemaname", "relname"))
        raise QueryError(f'cross-database references are not implemented: "{shown}"', "0A000")
    catalog, wanted = session.catalog, name["relname"]
    if "schemaname" in name:
        schemas = [catalog.schema_for_lookup(name["schemaname"], session.search_path).id]
    else:
        known = {schema.name: schema.id for schema in catalog.schemas()}
        schemas = [known[schema] for schema in session.search_path if schema in known]
    for schema in schemas:
        found = [
            constraint
            for table in catalog.tables()
            if table.schema_id == schema
            for constraint in _constraints(table)
            if constraint.name == wanted
        ]
        if found:
            keys = [c for c in found if isinstance(c, ForeignKey) and c.deferrable]
            if deferred and len(keys) < len(found):
                raise QueryError(f'constraint "{wanted}" is not deferrable', "42809")
            return {key.oid for key in keys}
    raise QueryError(f'constraint "{wanted}" does not exist', "42704")


def _constraints(table: Table) -> list[ForeignKey | Check | Index]:
    return [*table.foreign_keys, *table.checks, *(i for i in table.indexes if i.constraint)]
