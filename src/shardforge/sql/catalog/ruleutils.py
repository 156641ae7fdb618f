"""Expressions as SQL text, in PostgreSQL's own form: what pg_get_expr shows, and what descriptors store.

`expression_text` prints a bound expression: every implicit cast is written out, so binding the text again gives the
same meaning whatever the search path. Plain form puts parentheses around each operator; `pretty` leaves out those
that precedence makes needless, by PostgreSQL's rules. A regclass constant is printed as its oid, so that stored
text survives a rename; `visible_names` turns it into a name for people.
Source: PostgreSQL 15, src/backend/utils/adt/ruleutils.c (get_rule_expr, isSimpleNode, get_const_expr).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from shardforge.errors import unsupported
from shardforge.keys import ENUM_OIDS
from shardforge.sql import pgdata
from shardforge.sql.bind import tree
from shardforge.sql.catalog.quoting import quote_identifier, quote_literal
from shardforge.sql.catalog.typenames import stored_cast
from shardforge.sql.types.registry import format_type, is_array, output_function

UNKNOWN, BOOL, INT4, NUMERIC, REGCLASS = 705, 16, 23, 1700, 2205
_CASTS: Final = (tree.Relabel, tree.IoCast, tree.ArrayCast, tree.LengthCoercion)
_FUNCTION_LIKE: Final = (
    tree.Subscript, tree.ArrayExpr, tree.RowExpr, tree.Coalesce, tree.MinMax, tree.NullIf, tree.Case,
)  # fmt: skip
_REGCLASS_CONSTANT: Final = re.compile(r"(?<!')'(\d+)'::regclass")


class _PlainSettings:
    """Text forms that any session reads alike."""

    timezone = "UTC"
    datestyle = "ISO, MDY"
    intervalstyle = "postgres"
    extra_float_digits = 1
    bytea_output = "hex"


@cache
def _operator_of(proc: int) -> str | None:
    """The operator that a function implements; None when it is only a function."""
    row = pgdata.proc_by_oid(proc)
    if row is None or row.proname == "starts_with":
        return None
    return _operators().get(proc)


@cache
def _operators() -> dict[int, str]:
    return {row.oprcode: row.oprname for row in pgdata.operators()}


def is_cast(expression: tree.Expression) -> bool:
    """Whether the expression is a cast by function, by relabelling, by text, or to a length."""
    if isinstance(expression, _CASTS):
        return True
    if not isinstance(expression, tree.Call) or not expression.args:
        return False
    row = pgdata.casts().get((expression.args[0].type, expression.type))
    return row is not None and row.castfunc == expression.proc and row.castfunc != 0


def cast_argument(expression: tree.Expression) -> tree.Expression:
    """What a cast is applied to."""
    if isinstance(expression, tree.Call):
        return expression.args[0]
    assert isinstance(expression, _CASTS), "only casts have a cast argument"
    return expression.arg


def expression_text(
    expression: tree.Expression, columns: Mapping[int, str], *, pretty: bool = False
) -> str:
    """The expression as SQL; `columns` maps column ids to names. Raises: 0A000 for a subquery."""
    return _Printer(columns, pretty=pretty).show(expression)


def visible_names(text: str, name_of: Callable[[int], str | None]) -> str:
    """`text` with regclass constants by name; `name_of` gives a relation's name as it may be written here."""

    def named(match: re.Match[str]) -> str:
        name = name_of(int(match[1]))
        return match[0] if name is None else f"{quote_literal(name)}::regclass"

    return _REGCLASS_CONSTANT.sub(named, text)


def relations_named(text: str) -> list[int]:
    """The oids of the relations that stored text names by regclass constants."""
    return [int(match[1]) for match in _REGCLASS_CONSTANT.finditer(text)]


class _Printer:
    def __init__(self, columns: Mapping[int, str], *, pretty: bool) -> None:
        self._columns = columns
        self._pretty = pretty

    def show(self, e: tree.Expression) -> str:
        match e:
            case tree.Const():
                return self._const(e)
            case tree.ColumnRef():
                return quote_identifier(self._columns[e.column])
            case tree.Call():
                return self._call(e)
            case tree.Relabel() | tree.IoCast() | tree.ArrayCast() | tree.LengthCoercion():
                return self._cast(e)
            case tree.BoolOp():
                return self._boolean(e)
            case tree.NullTest():
                return self._outer(f"{self._inner(e.arg, e)} IS {'NOT ' if e.negated else ''}NULL")
            case tree.BooleanTest():
                test = f"IS {'NOT ' if e.negated else ''}{e.test.upper()}"
                return self._outer(f"{self._inner(e.arg, e)} {test}")
            case tree.DistinctTest():
                left, right = self._inner(e.left, e), self._inner(e.right, e)
                text = self._outer(f"{left} IS DISTINCT FROM {right}")
                return f"(NOT {text})" if e.negated else text
            case tree.Case():
                return self._case(e)
            case tree.Coalesce():
                return f"COALESCE({self._list(e.args)})"
            case tree.MinMax():
                return f"{'GREATEST' if e.greatest else 'LEAST'}({self._list(e.args)})"
            case tree.NullIf():
                return f"NULLIF({self.show(e.left)}, {self.show(e.right)})"
            case tree.ArrayExpr():
                text = f"ARRAY[{self._list(e.elements)}]"
                return text if e.elements else f"{text}::{format_type(e.type, -1)}"
            case tree.RowExpr():
                return f"ROW({self._list(e.args)})"
            case tree.FieldSelect():
                raise unsupported("selecting a field of a record in a stored expression")
            case tree.Subscript():
                return self._subscript(e)
            case tree.ScalarArrayOp():
                operator = _operator_of(e.proc) or "="
                word = "ANY" if e.use_or else "ALL"
                left, right = self._inner(e.left, e), self._inner(e.array, e)
                return self._outer(f"{left} {operator} {word} ({right})")
            case tree.RowCompare():
                return f"(ROW({self._list(e.left)}) {e.op} ROW({self._list(e.right)}))"
            case _:
                raise unsupported("this kind of expression in a stored definition")

    def _list(self, items: tuple[tree.Expression, ...]) -> str:
        return ", ".join(self.show(item) for item in items)

    def _const(self, e: tree.Const) -> str:
        text = constant_text(e.value, e.type, e.typmod)
        digits = text.removesuffix("'::numeric").removeprefix("'")
        if e.type == NUMERIC and digits.isdigit():
            # An integer that the binder has made numeric: PostgreSQL keeps, and shows, the conversion.
            return f"{digits}::numeric" if self._pretty else f"({digits})::numeric"
        return text

    def _outer(self, text: str) -> str:
        return text if self._pretty else f"({text})"

    def _inner(self, e: tree.Expression, parent: tree.Expression) -> str:
        text = self.show(e)
        return f"({text})" if self._pretty and not _is_simple(e, parent) else text

    def _call(self, e: tree.Call) -> str:
        if is_cast(e):
            return self._cast(e)
        operator = _operator_of(e.proc)
        if operator is not None and len(e.args) == 2:
            left, right = self._inner(e.args[0], e), self._inner(e.args[1], e)
            return self._outer(f"{left} {operator} {right}")
        if operator is not None and len(e.args) == 1:
            return self._outer(f"{operator} {self._inner(e.args[0], e)}")
        special = _SQL_SYNTAX.get(e.name)
        if special is not None:
            return special(self, e)
        row = pgdata.proc_by_oid(e.proc)
        name = e.name or (row.proname if row is not None else "")
        arguments = [self.show(item) for item in e.args]
        if row is not None and row.provariadic and arguments:
            arguments[-1] = self._variadic(e, row)
        return f"{quote_identifier(name)}({', '.join(arguments)})"

    def _variadic(self, e: tree.Call, row: pgdata.ProcRow) -> str:
        last = e.args[-1]
        if len(e.args) == len(row.proargtypes) and isinstance(last, tree.ArrayExpr):
            return self._list(last.elements)
        return f"VARIADIC {self.show(last)}"

    def _cast(self, e: tree.Expression) -> str:
        arg = cast_argument(e)
        typmod = e.typmod
        if isinstance(e, tree.LengthCoercion) and isinstance(arg, _CASTS) and arg.type == e.type:
            arg = cast_argument(arg)  # the cast and its length are one cast in SQL
        target = format_type(e.type, typmod)
        if isinstance(arg, tree.Const) and arg.type == e.type and arg.typmod < 0:
            return f"{_quoted(arg.value, arg.type)}::{target}"
        if self._pretty:
            return f"{self._inner(arg, e)}::{target}"
        return f"({self.show(arg)})::{target}"

    def _boolean(self, e: tree.BoolOp) -> str:
        if e.op == "not":
            return self._outer(f"NOT {self._inner(e.args[0], e)}")
        word = f" {e.op.upper()} "
        return self._outer(word.join(self._inner(item, e) for item in e.args))

    def _case(self, e: tree.Case) -> str:
        if self._pretty:
            lines = ["\nCASE"]
            lines += [f"    WHEN {self.show(w)} THEN {self.show(t)}" for w, t in e.whens]
            other = "NULL" if e.otherwise is None else self.show(e.otherwise)
            lines += [f"    ELSE {other}", "END"]
            return "\n".join(lines)
        whens = "".join(f" WHEN {self.show(w)} THEN {self.show(t)}" for w, t in e.whens)
        other = f"NULL::{format_type(e.type)}" if e.otherwise is None else self.show(e.otherwise)
        return f"CASE{whens} ELSE {other} END"

    def _subscript(self, e: tree.Subscript) -> str:
        text = self.show(e.arg)
        if not isinstance(e.arg, (tree.ColumnRef, tree.Subscript)):
            text = f"({text})"
        for lower, upper in e.subscripts:
            high = "" if upper is None else self.show(upper)
            if e.is_slice:
                text += f"[{'' if lower is None else self.show(lower)}:{high}]"
            else:
                text += f"[{high}]"
        return text


def _is_simple(e: tree.Expression, parent: tree.Expression) -> bool:
    """Whether `e` needs no parentheses inside `parent` in pretty form (isSimpleNode)."""
    if isinstance(e, (tree.Const, tree.ColumnRef, *_FUNCTION_LIKE)):
        return True
    if isinstance(e, _CASTS):
        return _is_simple(e.arg, e)
    if isinstance(e, tree.Call):
        if is_cast(e) or _operator_of(e.proc) is None:
            return True
        if isinstance(parent, tree.Call) and not is_cast(parent):
            outer = _operator_of(parent.proc)
            if outer is not None:
                return _binds_tighter(e, parent, outer)
        return _inside(parent)
    if isinstance(e, tree.BoolOp) and isinstance(parent, tree.BoolOp):
        if e.op == "or":
            return parent.op == "or"
        return parent.op in ("and", "or")
    return (not isinstance(e, tree.BoolOp) and _inside(parent)) or isinstance(
        parent, _FUNCTION_LIKE
    )


def _inside(parent: tree.Expression) -> bool:
    """Whether an operator needs no parentheses in `parent`: a function's argument, AND, OR, NOT."""
    if isinstance(parent, tree.Call):
        return not is_cast(parent) and _operator_of(parent.proc) is None
    return isinstance(parent, (tree.BoolOp, *_FUNCTION_LIKE))


def _binds_tighter(e: tree.Call, parent: tree.Call, outer: str) -> bool:
    own = _operator_of(e.proc)
    if len(e.args) != 2 or len(parent.args) != 2 or own is None:
        return False
    if own not in "+-*/%" or outer not in "+-*/%":
        return False
    own_high, outer_high = own in "*/%", outer in "*/%"
    if own_high != outer_high:
        return own_high
    return e is parent.args[0]


def _quoted(value: Any, oid: int) -> str:
    if value is None:
        return "NULL"
    if oid == REGCLASS:
        return f"'{value}'"
    text = output_function(oid, _PlainSettings())(value)
    return stored_cast(text, array=is_array(oid)) if oid in ENUM_OIDS else quote_literal(text)


def constant_text(value: Any, oid: int, typmod: int) -> str:
    """A constant as SQL, its type written out where the bare value would have another."""
    if value is None:
        return f"NULL::{format_type(oid, typmod)}" if oid != UNKNOWN else "NULL"
    if oid == BOOL:
        return "true" if value else "false"
    if oid == INT4 and value >= 0:
        return str(value)
    if oid == NUMERIC and typmod < 0 and value.is_finite() and not value.is_signed():
        text = output_function(oid, _PlainSettings())(value)
        if "." in text:
            return text
    text = _quoted(value, oid)
    return text if oid == UNKNOWN else f"{text}::{format_type(oid, typmod)}"


def _extract(printer: _Printer, e: tree.Call) -> str:
    field, source = e.args
    if not isinstance(field, tree.Const):
        return f"extract({printer._list(e.args)})"
    return f"EXTRACT({field.value} FROM {printer.show(source)})"


def _timezone(printer: _Printer, e: tree.Call) -> str:
    if len(e.args) != 2:
        return f"timezone({printer._list(e.args)})"
    zone, moment = e.args
    return f"({printer._inner(moment, e)} AT TIME ZONE {printer._inner(zone, e)})"


def _keyword(text: str) -> Callable[[_Printer, tree.Call], str]:
    return lambda printer, e: text if not e.args else f"{text}({printer._list(e.args)})"


_SQL_SYNTAX: Final[dict[str, Callable[[_Printer, tree.Call], str]]] = {
    "extract": _extract,
    "timezone": _timezone,
    **{
        word.lower(): _keyword(word)
        for word in (
            "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP",
            "CURRENT_ROLE", "CURRENT_USER", "SESSION_USER", "CURRENT_CATALOG",
        )
    },
}  # fmt: skip
