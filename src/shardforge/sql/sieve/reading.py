"""From the bytes of a sieve to a function of stored rows, on the node that holds them.

The bytes come from another node and are believed in nothing: a term names only earlier ones, functions are on the list,
depth and work for a row are bounded. The terms become the tree that they were made of, compiled as any condition is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from shardforge.errors import DatabaseError, NetworkError
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.keyspace import owner_function
from shardforge.sql.pgdata import proc_by_oid
from shardforge.sql.sieve import terms
from shardforge.sql.sieve.pushable import is_pushable
from shardforge.sql.sieve.terms import DEPTH_MAX, WEIGHT_MAX, Place, Sieve, Term
from shardforge.storage.rowcodec import RowCodec

SIEVES_KEPT: Final = 64
"""A scan asks page by page with the same sieve."""

Passes = Callable[[bytes, bytes], bool]


@lru_cache(maxsize=SIEVES_KEPT)
def read_sieve(data: bytes) -> Passes:
    """Whether a row, by its key and stored value, passes; true where its condition raises an error.

    Raises: NetworkError 08P01 for bytes that are no sieve.
    """
    sieve = terms.decode(data)
    try:
        return _passes(sieve)
    except DatabaseError as error:
        raise NetworkError(f"a sieve cannot be used: {error}") from error
    except Exception as error:  # whatever else is wrong with it: types that do not fit, above all
        raise NetworkError(f"a sieve is damaged: {error!r}") from error


def _passes(sieve: Sieve) -> Passes:
    owner = sieve.owner
    owns = None if owner is None else owner_function(owner.number, owner.index, owner.shard_oids)
    if not sieve.terms:
        return lambda key, value: owns is None or owns(key)
    layouts, picks = sieve.layouts, sieve.picks
    if not layouts or not all(0 <= pick < len(layouts[-1]) for pick in picks):
        raise NetworkError("a sieve reads columns that its table does not have")
    attnums = [attnum for attnum, _ in sieve.missing_columns]
    missing = dict(zip(attnums, _row(sieve.missing_columns, sieve.missing), strict=True))
    decode = RowCodec(layouts, missing).decoder(picks)
    columns = [
        tree.ColumnRef(ColumnId(number), layouts[-1][pick][1]) for number, pick in enumerate(picks)
    ]
    values = _row(list(enumerate(sieve.value_types)), sieve.values)
    constants = [
        tree.Const(value, oid) for value, oid in zip(values, sieve.value_types, strict=True)
    ]
    condition = _Conditions(sieve.terms, columns, constants).last()
    test = compile_expression(condition, {ColumnId(number): number for number in range(len(picks))})

    def passes(key: bytes, value: bytes) -> bool:
        if owns is not None and not owns(key):
            return False
        try:
            return bool(test(decode(value), None))
        except Exception:  # noqa: BLE001 - who evaluates it again says what is wrong, if it sees the row
            return True

    return passes


def _row(columns: Sequence[tuple[int, int]], data: bytes) -> tuple[Any, ...]:
    return RowCodec([columns]).decode(data) if columns else ()


class _Conditions:
    """Terms as expressions, from the first to the last."""

    def __init__(
        self, given: Sequence[Term], columns: Sequence[Expression], constants: Sequence[Expression]
    ) -> None:
        self._given = given
        self._columns = columns
        self._constants = constants
        self._made: list[Expression] = []
        self._depths: list[int] = []
        self._weights: list[int] = []

    def last(self) -> Expression:
        """The last term. Raises NetworkError."""
        for term in self._given:
            places = _places(term)
            if not all(0 <= place < len(self._made) for place in places):
                raise NetworkError("a term of a sieve is made of one that is not before it")
            depth = 1 + max((self._depths[place] for place in places), default=0)
            weight = 1 + sum(self._weights[place] for place in places)
            if depth > DEPTH_MAX or weight > WEIGHT_MAX:
                raise NetworkError("a sieve is too deep or too large")
            self._made.append(self._expression(term))
            self._depths.append(depth)
            self._weights.append(weight)
        return self._made[-1]

    def _all(self, places: Sequence[Place]) -> tuple[Expression, ...]:
        return tuple([self._made[place] for place in places])

    def _expression(self, term: Term) -> Expression:
        made = self._made
        match term:
            case terms.Value(number=number):
                return _at(self._constants, number)
            case terms.Column(number=number):
                return _at(self._columns, number)
            case terms.Call(proc=proc, args=args, oid=oid):
                return _call(proc, self._all(args), oid)
            case terms.Relabel(arg=arg, oid=oid):
                return tree.Relabel(made[arg], oid)
            case terms.Logic(op=op, args=args):
                if op not in ("and", "or", "not") or not args or (op == "not" and len(args) != 1):
                    raise NetworkError("a sieve has logic that there is not")
                return tree.BoolOp(op, self._all(args))
            case terms.IsNull(arg=arg, negated=negated):
                return tree.NullTest(made[arg], negated)
            case terms.IsTruth(arg=arg, test=test, negated=negated):
                return tree.BooleanTest(made[arg], test, negated)
            case terms.Distinct(proc=proc, left=left, right=right, negated=negated):
                return tree.DistinctTest(_allowed(proc), made[left], made[right], negated)
            case terms.AnyOf(proc=proc, left=left, array=array, use_or=use_or):
                return tree.ScalarArrayOp(_allowed(proc), made[left], made[array], use_or)
            case terms.Items(elements=elements, oid=oid):
                return tree.ArrayExpr(self._all(elements), oid)
            case terms.Coalesce(args=args, oid=oid):
                return tree.Coalesce(self._all(args), oid)
            case terms.Rows(op=op, left=lefts, right=rights, procs=procs):
                pairs = tuple([(_allowed(less), _allowed(equal)) for less, equal in procs])
                return tree.RowCompare(op, self._all(lefts), self._all(rights), pairs)


def _places(term: Term) -> Sequence[Place]:
    """The terms that one is made of."""
    match term:
        case terms.Call(args=args) | terms.Logic(args=args) | terms.Coalesce(args=args):
            return args
        case terms.Relabel(arg=arg) | terms.IsNull(arg=arg) | terms.IsTruth(arg=arg):
            return (arg,)
        case terms.Distinct(left=left, right=right) | terms.AnyOf(left=left, array=right):
            return (left, right)
        case terms.Items(elements=elements):
            return elements
        case terms.Rows(left=lefts, right=rights):
            return (*lefts, *rights)
    return ()


def _at(found: Sequence[Expression], number: int) -> Expression:
    if not 0 <= number < len(found):
        raise NetworkError("a sieve names a value or a column that it does not have")
    return found[number]


def _allowed(proc: int) -> int:
    if not is_pushable(proc):
        raise NetworkError(f"a sieve asks for a function that it may not have: {proc}")
    return proc


def _call(proc: int, args: tuple[Expression, ...], oid: int) -> Expression:
    row = proc_by_oid(_allowed(proc))
    assert row is not None, "it is on the list"
    if len(args) != len(row.proargtypes):
        raise NetworkError(f"a sieve gives {row.proname} {len(args)} arguments")
    return tree.Call(proc, args, oid, strict=row.proisstrict, name=row.proname)
