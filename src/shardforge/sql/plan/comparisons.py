"""Which functions are comparisons of a btree or hash family, and what they compare."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from shardforge.keys import element_of, kind_of
from shardforge.sql import pgdata
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import Expression

LESS, LESS_EQUAL, EQUAL, GREATER_EQUAL, GREATER = 1, 2, 3, 4, 5
_FLIPPED = {
    LESS: GREATER,
    LESS_EQUAL: GREATER_EQUAL,
    EQUAL: EQUAL,
    GREATER_EQUAL: LESS_EQUAL,
    GREATER: LESS,
}
_INTEGERS = frozenset(("int2", "int4", "int8"))
_FLOATS = frozenset(("float4", "float8"))


class Comparison(NamedTuple):
    """`left` compared with `right` by btree strategy (1 < to 5 >)."""

    strategy: int
    left: Expression
    right: Expression

    def flipped(self) -> Comparison:
        """The same, sides exchanged."""
        return Comparison(_FLIPPED[self.strategy], self.right, self.left)


@cache
def _strategies() -> dict[int, int]:
    found: dict[int, int] = {}
    for member in pgdata.amops():
        operator = pgdata.operator_by_oid(member.amopopr)
        if operator is None:
            continue
        if member.amname == "btree":
            found[operator.oprcode] = member.amopstrategy
        else:
            found.setdefault(operator.oprcode, EQUAL)
    return found


def strategy_of(proc: int) -> int | None:
    """The btree strategy of a comparison function."""
    return _strategies().get(proc)


def as_comparison(condition: Any) -> Comparison | None:
    """`condition` as a comparison, if it is one."""
    if not isinstance(condition, tree.Call) or len(condition.args) != 2:
        return None
    strategy = strategy_of(condition.proc)
    return None if strategy is None else Comparison(strategy, *condition.args)


def without_relabel(expression: Expression) -> Expression:
    """The expression under binary-coercible casts."""
    while isinstance(expression, tree.Relabel):
        expression = expression.arg
    return expression


def same_key(left: int, right: int) -> bool:
    """Whether equal values of both types have equal keys and hashes, in the same order."""
    if left == right:
        return True
    one, other = kind_of(left), kind_of(right)
    if not one or not other:
        element, other_element = element_of(left), element_of(right)
        return bool(element and other_element) and same_key(element, other_element)
    return one == other or {one, other} <= _INTEGERS


def same_hash(left: int, right: int) -> bool:
    """Whether values of both types are equal in SQL when their sort keys are equal in Python."""
    if same_key(left, right):
        return True
    return {kind_of(left), kind_of(right)} <= _FLOATS
