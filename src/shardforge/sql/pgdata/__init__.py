"""PostgreSQL 15's own pg_type, pg_proc, pg_operator, pg_cast, pg_aggregate and operator families, as typed rows.

The TSV files beside this module were written by `export.sql`. They are read once, when first asked for; rows
become tuples only when they are looked up, so that a process that binds ten functions parses ten rows. Fields
carry PostgreSQL's column names. The data says what exists there, not what is implemented here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Generic, NamedTuple, TypeVar


class TypeRow(NamedTuple):
    """A row of pg_type; `display` is format_type(oid, NULL). Function columns hold names, '-' for none."""

    oid: int
    typname: str
    display: str
    typlen: int
    typbyval: bool
    typtype: str
    typcategory: str
    typispreferred: bool
    typdelim: str
    typelem: int
    typarray: int
    typinput: str
    typoutput: str
    typreceive: str
    typsend: str
    typmodin: str
    typmodout: str
    typalign: str
    typstorage: str
    typcollation: int
    typsubscript: str


class ProcRow(NamedTuple):
    """A row of pg_proc. `defaults` holds one SQL expression for each of the last pronargdefaults arguments."""

    oid: int
    proname: str
    prosrc: str
    prolang: str
    prokind: str
    """f function, a aggregate, w window."""
    proretset: bool
    proisstrict: bool
    provolatile: str
    """i immutable, s stable, v volatile."""
    provariadic: int
    """Element type of the variadic array argument, or 0."""
    prorettype: int
    proargtypes: tuple[int, ...]
    proallargtypes: tuple[int, ...]
    """With output arguments, when there are any; else empty."""
    proargmodes: tuple[str, ...]
    proargnames: tuple[str, ...]
    defaults: tuple[str, ...]

    @property
    def pronargs(self) -> int:
        """How many input arguments there are."""
        return len(self.proargtypes)

    @property
    def pronargdefaults(self) -> int:
        """How many of the last arguments have defaults."""
        return len(self.defaults)


class OperatorRow(NamedTuple):
    """A row of pg_operator: oprkind is b (infix) or l (prefix, oprleft 0); oprcode is a pg_proc oid."""

    oid: int
    oprname: str
    oprkind: str
    oprcanmerge: bool
    oprcanhash: bool
    oprleft: int
    oprright: int
    oprresult: int
    oprcom: int
    oprnegate: int
    oprcode: int


class CastRow(NamedTuple):
    """A row of pg_cast: context i implicit, a assignment, e explicit; method f function, b binary, i by text."""

    oid: int
    castsource: int
    casttarget: int
    castfunc: int
    castcontext: str
    castmethod: str


class AggregateRow(NamedTuple):
    """A row of pg_aggregate: aggkind n normal, o ordered-set, h hypothetical."""

    aggfnoid: int
    aggkind: str
    aggnumdirectargs: int
    aggtransfn: int
    aggfinalfn: int
    aggsortop: int
    aggtranstype: int
    agginitval: str | None


class AmopRow(NamedTuple):
    """A row of pg_amop for btree (strategies 1 to 5: < <= = >= >) and hash (1: =)."""

    amoplefttype: int
    amoprighttype: int
    amopstrategy: int
    amopopr: int
    amname: str
    opfname: str


Row = TypeVar("Row")


def _lines(table: str) -> list[str]:
    return files(__name__).joinpath(f"{table}.tsv").read_text("utf-8").splitlines()


class _Lazy(Generic[Row]):
    """Rows by oid (first field) and by name (second field), parsed when looked up and then kept."""

    def __init__(self, table: str, parse: Callable[[str], Row]) -> None:
        self._parse = parse
        self._line: dict[int, str] = {}
        self._row: dict[int, Row] = {}
        self._named: dict[str, list[int]] = defaultdict(list)
        for line in _lines(table):
            oid_text, name, _ = line.split("\t", 2)
            oid = int(oid_text)
            self._line[oid] = line
            self._named[name].append(oid)

    def get(self, oid: int) -> Row | None:
        """The row with this oid."""
        row = self._row.get(oid)
        if row is None:
            line = self._line.get(oid)
            if line is None:
                return None
            row = self._row[oid] = self._parse(line)
        return row

    def named(self, name: str) -> tuple[Row, ...]:
        """The rows with this name, by oid."""
        return tuple(row for oid in self._named.get(name, ()) if (row := self.get(oid)) is not None)

    def __iter__(self) -> Iterator[Row]:
        for oid in self._line:
            row = self.get(oid)
            if row is not None:
                yield row


def _oids(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def _parse_proc(line: str) -> ProcRow:
    f = line.split("\t")
    return ProcRow(
        int(f[0]), f[1], f[2], f[3], f[4], f[5] == "t", f[6] == "t", f[7], int(f[8]), int(f[9]),
        _oids(f[10]), _oids(f[11]), tuple(f[12].split(",")) if f[12] else (),
        tuple(f[13].split("|")) if f[13] else (), tuple(f[14].split("|")) if f[14] else (),
    )  # fmt: skip


def _parse_operator(line: str) -> OperatorRow:
    f = line.split("\t")
    return OperatorRow(
        int(f[0]), f[1], f[2], f[3] == "t", f[4] == "t",
        int(f[5]), int(f[6]), int(f[7]), int(f[8]), int(f[9]), int(f[10]),
    )  # fmt: skip


def _parse_type(line: str) -> TypeRow:
    f = line.split("\t")
    return TypeRow(
        int(f[0]), f[1], f[2], int(f[3]), f[4] == "t", f[5], f[6], f[7] == "t", f[8],
        int(f[9]), int(f[10]), f[11], f[12], f[13], f[14], f[15], f[16], f[17], f[18], int(f[19]), f[20],
    )  # fmt: skip


@cache
def _procs() -> _Lazy[ProcRow]:
    return _Lazy("pg_proc", _parse_proc)


@cache
def _operators() -> _Lazy[OperatorRow]:
    return _Lazy("pg_operator", _parse_operator)


def procs() -> Iterator[ProcRow]:
    """Every function, by oid."""
    return iter(_procs())


def proc_by_oid(oid: int) -> ProcRow | None:
    """The function with this oid."""
    return _procs().get(oid)


def procs_named(name: str) -> tuple[ProcRow, ...]:
    """The functions with this name; empty when there is none."""
    return _procs().named(name)


def operators() -> Iterator[OperatorRow]:
    """Every operator, by oid."""
    return iter(_operators())


def operator_by_oid(oid: int) -> OperatorRow | None:
    """The operator with this oid."""
    return _operators().get(oid)


def operators_named(name: str) -> tuple[OperatorRow, ...]:
    """The operators with this name, infix and prefix."""
    return _operators().named(name)


@cache
def types() -> tuple[TypeRow, ...]:
    """Every base, pseudo, range and array type, by oid."""
    return tuple(map(_parse_type, _lines("pg_type")))


@cache
def casts() -> dict[tuple[int, int], CastRow]:
    """Every cast, by (source, target)."""
    rows = (line.split("\t") for line in _lines("pg_cast"))
    parsed = (CastRow(int(f[0]), int(f[1]), int(f[2]), int(f[3]), f[4], f[5]) for f in rows)
    return {(row.castsource, row.casttarget): row for row in parsed}


@cache
def aggregates() -> dict[int, AggregateRow]:
    """Every aggregate, by pg_proc oid."""
    rows = (line.split("\t") for line in _lines("pg_aggregate"))
    parsed = (
        AggregateRow(
            int(f[0]), f[1], int(f[2]), int(f[3]), int(f[4]), int(f[5]), int(f[6]), f[7] or None
        )
        for f in rows
    )
    return {row.aggfnoid: row for row in parsed}


@cache
def amops() -> tuple[AmopRow, ...]:
    """Every member of a btree or hash operator family."""
    rows = (line.split("\t") for line in _lines("pg_amop"))
    return tuple(AmopRow(int(f[0]), int(f[1]), int(f[2]), int(f[3]), f[4], f[5]) for f in rows)


@cache
def btree_operators() -> dict[tuple[int, int, int], int]:
    """(left type, right type, strategy) -> operator oid, over the default btree families."""
    return {
        (row.amoplefttype, row.amoprighttype, row.amopstrategy): row.amopopr
        for row in amops()
        if row.amname == "btree"
    }


@cache
def keywords() -> tuple[tuple[str, str, bool, str, str], ...]:
    """Every keyword: word, category (U, C, T or R), whether it can be a bare label, and both in words."""
    rows = (line.split("\t") for line in _lines("keywords"))
    return tuple((f[0], f[1], f[2] == "t", f[3], f[4]) for f in rows)
