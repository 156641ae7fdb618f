"""pg_proc, pg_aggregate, pg_operator, pg_cast, pg_language."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from shardforge.sql import pgdata
from shardforge.sql.catalog.relations import VirtualContext
from shardforge.sql.catalog.snapshot import PG_CATALOG
from shardforge.sql.catalog.virtual.base import Record, rows_of
from shardforge.sql.catalog.virtual.indexes import vector
from shardforge.sql.types.values import Array

LANGUAGES: Final = ((12, "internal", False, False), (13, "c", False, False), (14, "sql", False, True),
                    (13563, "plpgsql", True, True))  # fmt: skip


@cache
def _procs() -> tuple[Record, ...]:
    languages = {name: oid for oid, name, _, _ in LANGUAGES}
    return tuple(_proc(row, languages) for row in pgdata.procs())


def _proc(p: pgdata.ProcRow, languages: dict[str, int]) -> Record:
    return {
        "oid": p.oid, "proname": p.proname, "pronamespace": PG_CATALOG, "proowner": 10,
        "prolang": languages.get(p.prolang, 12), "procost": 1.0, "prorows": 1000.0 if p.proretset else 0.0,
        "provariadic": p.provariadic, "prosupport": 0, "prokind": p.prokind, "prosecdef": False,
        "proleakproof": False, "proisstrict": p.proisstrict, "proretset": p.proretset,
        "provolatile": p.provolatile, "proparallel": "s", "pronargs": p.pronargs,
        "pronargdefaults": p.pronargdefaults, "prorettype": p.prorettype,
        "proargtypes": vector(list(p.proargtypes)),
        "proallargtypes": Array(p.proallargtypes) if p.proallargtypes else None,
        "proargmodes": Array(p.proargmodes) if p.proargmodes else None,
        "proargnames": Array(p.proargnames) if p.proargnames else None,
        "proargdefaults": ", ".join(p.defaults) if p.defaults else None, "prosrc": p.prosrc,
    }  # fmt: skip


@rows_of("pg_proc")
def pg_proc(ctx: VirtualContext) -> Iterator[Record]:
    """PostgreSQL's functions: what exists there; one that is not implemented says so when it is called."""
    yield from _procs()


@rows_of("pg_aggregate")
def pg_aggregate(ctx: VirtualContext) -> Iterator[Record]:
    """Aggregates."""
    for a in pgdata.aggregates().values():
        yield {
            "aggfnoid": a.aggfnoid, "aggkind": a.aggkind, "aggnumdirectargs": a.aggnumdirectargs,
            "aggtransfn": a.aggtransfn, "aggfinalfn": a.aggfinalfn, "aggcombinefn": 0, "aggserialfn": 0,
            "aggdeserialfn": 0, "aggmtransfn": 0, "aggminvtransfn": 0, "aggmfinalfn": 0, "aggfinalextra": False,
            "aggmfinalextra": False, "aggfinalmodify": "r", "aggmfinalmodify": "r", "aggsortop": a.aggsortop,
            "aggtranstype": a.aggtranstype, "aggtransspace": 0, "aggmtranstype": 0, "aggmtransspace": 0,
            "agginitval": a.agginitval,
        }  # fmt: skip


@rows_of("pg_operator")
def pg_operator(ctx: VirtualContext) -> Iterator[Record]:
    """Operators."""
    for o in pgdata.operators():
        yield {
            "oid": o.oid, "oprname": o.oprname, "oprnamespace": PG_CATALOG, "oprowner": 10, "oprkind": o.oprkind,
            "oprcanmerge": o.oprcanmerge, "oprcanhash": o.oprcanhash, "oprleft": o.oprleft, "oprright": o.oprright,
            "oprresult": o.oprresult, "oprcom": o.oprcom, "oprnegate": o.oprnegate, "oprcode": o.oprcode,
            "oprrest": 0, "oprjoin": 0,
        }  # fmt: skip


@rows_of("pg_cast")
def pg_cast(ctx: VirtualContext) -> Iterator[Record]:
    """Casts."""
    for c in pgdata.casts().values():
        yield {
            "oid": c.oid, "castsource": c.castsource, "casttarget": c.casttarget, "castfunc": c.castfunc,
            "castcontext": c.castcontext, "castmethod": c.castmethod,
        }  # fmt: skip


@rows_of("pg_language")
def pg_language(ctx: VirtualContext) -> Iterator[Record]:
    """Languages by PostgreSQL's names; CREATE FUNCTION is refused in all of them."""
    for oid, name, procedural, trusted in LANGUAGES:
        yield {
            "oid": oid, "lanname": name, "lanowner": 10, "lanispl": procedural, "lanpltrusted": trusted,
            "lanplcallfoid": 0, "laninline": 0, "lanvalidator": 0,
        }  # fmt: skip
