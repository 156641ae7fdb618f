"""The rewriting rules, in the order in which they apply: functions from tree to tree that keep the meaning."""

from __future__ import annotations

from collections.abc import Callable

from shardforge.sql.plan.joinorder import order_joins
from shardforge.sql.plan.logical import ColumnIds, Relation
from shardforge.sql.plan.pushdown import push_down_conditions
from shardforge.sql.plan.subqueries import extract_subqueries

Rule = Callable[[Relation, ColumnIds], Relation]

RULES: tuple[Rule, ...] = (
    extract_subqueries,
    lambda relation, ids: push_down_conditions(relation),
    lambda relation, ids: order_joins(relation),
)


def apply_rules(relation: Relation, ids: ColumnIds) -> Relation:
    """`relation` after every rule."""
    for rule in RULES:
        relation = rule(relation, ids)
    return relation
