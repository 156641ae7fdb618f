"""Expressions as text, for EXPLAIN. Good enough to read; never parsed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from shardforge.keys import ENUM_OIDS
from shardforge.sql import pgdata
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.catalog.ruleutils import constant_text
from shardforge.sql.execute.expressions import LazyColumn
from shardforge.sql.types.registry import format_type


@cache
def _operator_names() -> dict[int, str]:
    return {row.oprcode: row.oprname for row in reversed(list(pgdata.operators()))}


class Namer:
    """Writes expressions, columns by their names."""

    def __init__(self, names: Mapping[ColumnId, str]) -> None:
        self._names = names

    def conjunction(self, conditions: Sequence[Any]) -> str:
        """Conditions joined by AND."""
        shown = [self.of(condition) for condition in conditions]
        return shown[0] if len(shown) == 1 else f"({' AND '.join(shown)})"

    def of(self, expression: Any) -> str:
        """The text of one expression."""
        match expression:
            case tree.Const(value=value, type=oid):
                return _constant(value, oid)
            case tree.Param(index=index):
                return f"${index + 1}"
            case tree.ColumnRef(column=column):
                return self._names.get(column, f"column{column}")
            case LazyColumn(ref=ref):
                return self.of(ref)
            case tree.Relabel(arg=arg) | tree.LengthCoercion(arg=arg):
                return self.of(arg)
            case tree.IoCast(arg=arg, type=oid) | tree.ArrayCast(arg=arg, type=oid):
                return f"({self.of(arg)})::{format_type(oid)}"
            case tree.BoolOp(op="not", args=(arg,)):
                return f"(NOT {self.of(arg)})"
            case tree.BoolOp(op=op, args=args):
                return "(" + f" {op.upper()} ".join(map(self.of, args)) + ")"
            case tree.NullTest(arg=arg, negated=negated):
                return f"({self.of(arg)} IS {'NOT ' if negated else ''}NULL)"
            case tree.BooleanTest(arg=arg, test=test, negated=negated):
                return f"({self.of(arg)} IS {'NOT ' if negated else ''}{test.upper()})"
            case tree.Call(proc=proc, args=args, name=name):
                return self._call(proc, args, name)
            case tree.ScalarArrayOp(proc=proc, left=left, array=array, use_or=use_or):
                word = "ANY" if use_or else "ALL"
                operator = _operator_names().get(proc, "=")
                return f"({self.of(left)} {operator} {word} ({self.of(array)}))"
            case tree.ArrayExpr(elements=elements):
                return f"ARRAY[{', '.join(map(self.of, elements))}]"
            case tree.Coalesce(args=args):
                return f"COALESCE({', '.join(map(self.of, args))})"
            case tree.Case():
                return "CASE ... END"
        return f"<{type(expression).__name__}>"

    def _call(self, proc: int, args: Sequence[Any], name: str) -> str:
        operator = _operator_names().get(proc)
        if operator is not None and len(args) == 2:
            return f"({self.of(args[0])} {operator} {self.of(args[1])})"
        if not name:
            row = pgdata.proc_by_oid(proc)
            name = "?" if row is None else row.proname
        return f"{name}({', '.join(map(self.of, args))})"


def _constant(value: Any, oid: int) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and oid in (20, 21, 23, 700, 701):
        return str(value)
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted}'::{format_type(oid)}"
    if oid in ENUM_OIDS:
        return constant_text(value, oid, -1)
    return f"{value}::{format_type(oid)}"
