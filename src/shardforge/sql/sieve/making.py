"""From a scan's condition to a sieve: which of it a shard elsewhere evaluates, and with which values.

What does not depend on the scan's row is evaluated here, once for an execution, and becomes a value. Where that fails
(an error that only a row may bring up), or something is not on the list, the condition is cut before it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from shardforge.errors import DatabaseError
from shardforge.sql.bind import tree, walk
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.execute.expressions.calls import element_type_of
from shardforge.sql.execute.rowwriter import missing_values, stored_positions
from shardforge.sql.sieve import terms
from shardforge.sql.sieve.pushable import is_like, is_pushable, is_quick_pattern
from shardforge.sql.sieve.terms import (
    DEPTH_MAX,
    SIEVE_BYTES_MAX,
    WEIGHT_MAX,
    Owner,
    Place,
    Sieve,
    Term,
)
from shardforge.sql.types.values import Array
from shardforge.storage.rowcodec import RowCodec
from shardforge.storage.valuecodec import fixed, variable

ITEMS_MAX: Final = 4_096
"""Elements of a list; a longer one is not sent."""


class _UnfitError(Exception):
    """This is not for a shard elsewhere."""


class SieveMaker:
    """Makes the sieves of one scan of a plan."""

    def __init__(
        self, table: Table, attnum_of: Mapping[ColumnId, int], condition: Expression | None, owner: Owner | None
    ) -> None:  # fmt: skip
        """`attnum_of`: the scan's columns; `owner`: whose keys are meant, where the scan meets those of others."""
        self._table = table
        self._attnum_of = attnum_of
        self._conditions = walk.conjuncts(condition)
        self._owner = owner

    def make(self, run: Any) -> bytes:
        """The sieve of an execution (`ExecContext` or `Run`); empty when all rows would pass."""
        made = _Terms(self._attnum_of, run)
        made.add_conjunction(self._conditions)
        if len(made.terms) > WEIGHT_MAX or not (made.terms or self._owner):
            return b""
        layouts = self._table.layouts
        missing = missing_values(self._table)
        late = [column for column in layouts[-1] if column[0] in missing]
        position = stored_positions(self._table)
        try:
            data = terms.encode(
                Sieve(
                    layouts,
                    late,
                    _as_row(late, [missing[attnum] for attnum, _ in late]),
                    [position[attnum] for attnum in made.attnums],
                    made.types,
                    _as_row(list(enumerate(made.types)), made.values),
                    made.terms,
                    self._owner,
                )
            )
        except (DatabaseError, ValueError, ArithmeticError, struct.error):
            return b""  # a value that nothing stores, such as a text with half a surrogate pair
        return data if len(data) <= SIEVE_BYTES_MAX else b""


def _as_row(columns: Sequence[tuple[int, int]], values: Sequence[Any]) -> bytes:
    return RowCodec([columns]).encode(values) if columns else b""


class _Terms:
    """The terms of one execution."""

    def __init__(self, attnum_of: Mapping[ColumnId, int], run: Any) -> None:
        self.terms: list[Term] = []
        self.attnums: list[int] = []
        """The columns that are read."""
        self.types: list[int] = []
        self.values: list[Any] = []
        self._attnum_of = attnum_of
        self._run = run
        self._columns: dict[int, Place] = {}

    def add_conjunction(self, conditions: Sequence[Expression]) -> None:
        """Add the first of the conditions that are fit, the conjunction last; nothing when none is."""
        parts: list[Place] = []
        for condition in conditions:
            before = len(self.terms), len(self.attnums), len(self.types)
            try:
                parts.append(self._term(condition, DEPTH_MAX - 1))
            except _UnfitError:
                self._cut(*before)
                break
        if len(parts) > 1:
            self._add(terms.Logic("and", parts))

    def _cut(self, count: int, columns: int, values: int) -> None:
        del self.terms[count:], self.attnums[columns:], self.types[values:], self.values[values:]

    def _add(self, term: Term) -> Place:
        self.terms.append(term)
        return len(self.terms) - 1

    def _term(self, expression: Expression, depth: int) -> Place:
        if not depth:
            raise _UnfitError
        if walk.references(expression).isdisjoint(self._attnum_of):
            return self._value(self._evaluated(expression), expression.type)
        make = _MAKERS.get(type(expression))
        if make is None:
            raise _UnfitError
        return self._add(make(self, expression, depth - 1))

    def _all(self, expressions: Sequence[Expression], depth: int) -> list[Place]:
        return [self._term(expression, depth) for expression in expressions]

    # ---- what does not depend on the row ---------------------------------------------------------

    def _evaluated(self, expression: Expression) -> Any:
        if isinstance(expression, tree.Const):
            return expression.value
        if walk.is_volatile(expression):
            raise _UnfitError
        try:
            return compile_expression(expression, {})((), self._run)
        except DatabaseError as error:
            raise _UnfitError from error

    def _value(self, value: Any, oid: int) -> Place:
        if not _is_stored(oid):
            raise _UnfitError
        self.types.append(oid)
        self.values.append(value)
        return self._add(terms.Value(len(self.types) - 1))

    # ---- what does -------------------------------------------------------------------------------

    def _column(self, expression: tree.ColumnRef, _depth: int) -> Term:
        attnum = self._attnum_of[expression.column]
        if attnum <= 0:  # the row's key, or a system column
            raise _UnfitError
        if attnum not in self.attnums:
            self.attnums.append(attnum)
        return terms.Column(self.attnums.index(attnum))

    def _call(self, expression: tree.Call, depth: int) -> Term:
        _check(expression.proc)
        args = self._all(expression.args, depth)
        if is_like(expression.proc):
            pattern = self.terms[args[1]]
            if not isinstance(pattern, terms.Value):
                raise _UnfitError
            value = self.values[pattern.number]
            if value is not None and not is_quick_pattern(value):
                raise _UnfitError
        return terms.Call(expression.proc, args, expression.type)

    def _relabel(self, expression: tree.Relabel, depth: int) -> Term:
        return terms.Relabel(self._term(expression.arg, depth), expression.type)

    def _logic(self, expression: tree.BoolOp, depth: int) -> Term:
        return terms.Logic(expression.op, self._all(expression.args, depth))

    def _null_test(self, expression: tree.NullTest, depth: int) -> Term:
        if expression.row:
            raise _UnfitError
        return terms.IsNull(self._term(expression.arg, depth), expression.negated)

    def _boolean_test(self, expression: tree.BooleanTest, depth: int) -> Term:
        arg = self._term(expression.arg, depth)
        return terms.IsTruth(arg, expression.test, expression.negated)

    def _distinct(self, expression: tree.DistinctTest, depth: int) -> Term:
        _check(expression.proc)
        left, right = self._all((expression.left, expression.right), depth)
        return terms.Distinct(expression.proc, left, right, expression.negated)

    def _any_of(self, expression: tree.ScalarArrayOp, depth: int) -> Term:
        _check(expression.proc)
        if is_like(expression.proc):
            raise _UnfitError
        left = self._term(expression.left, depth)
        array = self._list(expression.array, depth)
        return terms.AnyOf(expression.proc, left, array, expression.use_or)

    def _list(self, array: Expression, depth: int) -> Place:
        """A list of single values where there are some: equality with any of them is then one look-up."""
        if depth < 2:
            raise _UnfitError
        if isinstance(array, tree.ArrayExpr) and not array.nested:
            return self._add(self._items(array, depth - 1))
        if not walk.references(array).isdisjoint(self._attnum_of):
            return self._term(array, depth)
        value = self._evaluated(array)
        if not isinstance(value, Array) or not value.elements:
            return self._value(value, array.type)
        _check_count(value.elements)
        element_type = element_type_of(array.type)
        places = [self._value(element, element_type) for element in value.elements]
        return self._add(terms.Items(places, array.type))

    def _items(self, expression: tree.ArrayExpr, depth: int) -> Term:
        if expression.nested:
            raise _UnfitError
        _check_count(expression.elements)
        return terms.Items(self._all(expression.elements, depth), expression.type)

    def _coalesce(self, expression: tree.Coalesce, depth: int) -> Term:
        return terms.Coalesce(self._all(expression.args, depth), expression.type)

    def _rows(self, expression: tree.RowCompare, depth: int) -> Term:
        for pair in expression.procs:
            for proc in pair:
                _check(proc)
        left, right = self._all(expression.left, depth), self._all(expression.right, depth)
        return terms.Rows(expression.op, left, right, expression.procs)


def _check(proc: int) -> None:
    if not is_pushable(proc):
        raise _UnfitError


def _check_count(elements: Sequence[Any]) -> None:
    if len(elements) > ITEMS_MAX:
        raise _UnfitError


@cache
def _is_stored(oid: int) -> bool:
    """Whether values of the type can be stored, and so be sent."""
    if fixed(oid) is not None:
        return True
    try:
        variable(oid)
    except DatabaseError:
        return False
    return True


_MAKERS: Final[dict[type, Callable[[_Terms, Any, int], Term]]] = {
    tree.ColumnRef: _Terms._column,
    tree.Call: _Terms._call,
    tree.Relabel: _Terms._relabel,
    tree.BoolOp: _Terms._logic,
    tree.NullTest: _Terms._null_test,
    tree.BooleanTest: _Terms._boolean_test,
    tree.DistinctTest: _Terms._distinct,
    tree.ScalarArrayOp: _Terms._any_of,
    tree.ArrayExpr: _Terms._items,
    tree.Coalesce: _Terms._coalesce,
    tree.RowCompare: _Terms._rows,
}
