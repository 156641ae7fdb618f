"""Join order and method. PURE.

Inner joins are flattened into relations and conditions. The order is greedy: begin with the relation that its own
conditions narrow most, then always take one that an equality connects to what is there, the best-reached first. With
no statistics yet, a join whose inner side has a usable index starts with look-ups and changes to hashing by itself.
"""

from __future__ import annotations

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.bind.walk import columns_of, conjunction, has, is_volatile, references
from shardforge.sql.plan.access import choose, comparison_of
from shardforge.sql.plan.physical import HashJoin, LookupJoin, NestedLoop, Physical


class Input:
    """One relation of a join: its plan when it stands alone, and its scan when an index may reach into it."""

    def __init__(
        self, physical: Physical, scan: tree.Scan | None, own: list[Expression], score: int
    ) -> None:
        self.physical = physical
        self.scan = scan
        self.own = own
        """Conditions on this relation alone."""
        self.score = score
        self.columns = set(columns_of(scan if scan is not None else physical))


def equality(
    condition: Expression, left: set[ColumnId], right: set[ColumnId]
) -> tuple[Expression, Expression] | None:
    """(left key, right key) of a condition `a = b` across the two sides with equal types."""
    if (
        not isinstance(condition, tree.Call)
        or len(condition.args) != 2
        or comparison_of(condition.proc) != "="
    ):
        return None
    a, b = condition.args
    uses_a, uses_b = references(a), references(b)
    if (
        not hashable_together(a.type, b.type)
        or is_volatile(condition)
        or has(condition, tree.Subquery)
    ):
        return None
    if uses_a and uses_b and uses_a <= left and uses_b <= right:
        return a, b
    if uses_a and uses_b and uses_b <= left and uses_a <= right:
        return b, a
    return None


_INTEGERS = {20, 21, 23, 26}
_TEXTS = {25, 1043, 19}


def hashable_together(a: int, b: int) -> bool:
    """Whether equal values of the two types have equal hash keys."""
    return a == b or (a in _INTEGERS and b in _INTEGERS) or (a in _TEXTS and b in _TEXTS)


def join(
    kind: str,
    left: Physical,
    right: Input,
    conditions: list[Expression],
    left_columns: set[ColumnId],
) -> Physical:
    """The join of two sides under `conditions` (those that use both, or for outer joins all of ON)."""
    pairs = []
    rest = []
    for condition in conditions:
        pair = equality(condition, left_columns, right.columns)
        if pair is None:
            rest.append(condition)
        else:
            pairs.append(pair)
    hashed = None
    if pairs:
        hashed = HashJoin(
            kind,
            left,
            right.physical,
            tuple(a for a, _ in pairs),
            tuple(b for _, b in pairs),
            conjunction(rest),
        )
    if right.scan is not None and kind in ("inner", "left", "semi", "anti"):
        inner, score = choose(right.scan, [*right.own, *conditions])
        if score > max(right.score, 1) and not any(has(c, tree.Subquery) for c in conditions):
            return LookupJoin(kind, left, inner, None, hashed)
    if hashed is not None:
        return hashed
    return NestedLoop(kind, left, right.physical, conjunction(conditions), lateral=False)


def order_inner(
    relations: list[Input], conditions: list[Expression]
) -> tuple[Physical, list[Expression]]:
    """One plan joining all relations; returns it with the conditions that are left for a filter above."""
    pending = list(conditions)
    remaining = list(relations)
    first = max(remaining, key=lambda r: r.score)
    remaining.remove(first)
    plan, have = first.physical, set(first.columns)
    everything = set().union(*(r.columns for r in relations))
    while remaining:
        chosen = max(remaining, key=lambda r: _connection(r, have, pending))
        remaining.remove(chosen)
        both = have | chosen.columns
        ready = [
            c
            for c in pending
            if references(c) & everything <= both and references(c) & chosen.columns
        ]
        pending = [c for c in pending if c not in ready]
        plan = join("inner", plan, chosen, ready, have)
        have = both
    return plan, pending


def _connection(relation: Input, have: set[ColumnId], pending: list[Expression]) -> tuple[int, int]:
    connected = any(equality(c, have, relation.columns) is not None for c in pending)
    return (2 if connected else 0, relation.score)
