"""FOR UPDATE, NO KEY UPDATE, SHARE and KEY SHARE.

Source: PostgreSQL 15, src/backend/parser/analyze.c (transformLockingClause).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardforge.sql.bind.from_clause import key_of
from shardforge.sql.bind.ranges import (
    CteItem,
    FunctionItem,
    JoinItem,
    RangeItem,
    RelationItem,
    SubqueryItem,
    VirtualItem,
)
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import ColumnId, ColumnRef, Expression, LockRows, Relation
from shardforge.sql.catalog.descriptors import Table
from shardforge.sql.types import oids

_STRENGTHS = {
    "LCS_FORKEYSHARE": (0, "FOR KEY SHARE"),
    "LCS_FORSHARE": (1, "FOR SHARE"),
    "LCS_FORNOKEYUPDATE": (2, "FOR NO KEY UPDATE"),
    "LCS_FORUPDATE": (3, "FOR UPDATE"),
}
_POLICIES = {"LockWaitBlock": "block", "LockWaitSkip": "skip", "LockWaitError": "error"}
_RANKS = {"block": 0, "skip": 1, "error": 2}


@dataclass(slots=True, eq=False)
class Locks:
    """Row keys to lock: (key below the select list, key above it, table), by strength and policy."""

    scope: Scope
    wanted: dict[ColumnId, tuple[Table, int, str]] = field(default_factory=dict)
    above: dict[ColumnId, ColumnId] = field(default_factory=dict)

    def add(self, key: ColumnId, table: Table, strength: int, policy: str) -> None:
        """One more table; the stronger of two wishes counts."""
        if key in self.wanted:
            _, other, its = self.wanted[key]
            strength = max(strength, other)
            policy = max(policy, its, key=_RANKS.__getitem__)
        self.wanted[key] = (table, strength, policy)
        if key not in self.above:
            self.above[key] = self.scope.shared.new_column()

    def passed_through(self) -> tuple[tuple[ColumnId, Expression], ...]:
        """The keys as further outputs of the select list."""
        return tuple((above, ColumnRef(below, oids.BYTEA)) for below, above in self.above.items())

    def wrap(self, relation: Relation) -> Relation:
        """LockRows nodes over `relation`, one for each strength and policy."""
        groups: dict[tuple[int, str], list[tuple[ColumnId, Table]]] = {}
        for key, (table, strength, policy) in self.wanted.items():
            groups.setdefault((strength, policy), []).append((self.above[key], table))
        for (strength, policy), keys in groups.items():
            relation = LockRows(relation, tuple(keys), strength, policy)
        return relation


def _leaves(item: RangeItem | None) -> list[RangeItem]:
    if item is None:
        return []
    if isinstance(item, JoinItem):
        if item.alias is not None:
            return [item]
        return _leaves(item.left) + _leaves(item.right)
    return [item]


def bind_locking(scope: Scope, clauses: list[Node], source: RangeItem | None) -> Locks:
    """The locks of a SELECT's locking clauses."""
    locks = Locks(scope)
    leaves = _leaves(source)
    for each in clauses:
        clause = each["LockingClause"]
        strength, word = _STRENGTHS[clause["strength"]]
        policy = _POLICIES[clause.get("waitPolicy", "LockWaitBlock")]
        if "lockedRels" not in clause:
            for leaf in leaves:
                _lock(scope, locks, leaf, strength, policy, word, named=False)
            continue
        for named in clause["lockedRels"]:
            relation = named["RangeVar"]
            location = relation.get("location", 0)
            if "schemaname" in relation:
                raise scope.shared.error(
                    f"{word} must specify unqualified relation names", "42601", location
                )
            found = [leaf for leaf in leaves if leaf.alias == relation["relname"]]
            if not found:
                raise scope.shared.error(
                    f'relation "{relation["relname"]}" in {word} clause not found in FROM clause',
                    "42P01",
                    location,
                )
            _lock(scope, locks, found[0], strength, policy, word, named=True, location=location)
    return locks


def _lock(
    scope: Scope,
    locks: Locks,
    item: RangeItem,
    strength: int,
    policy: str,
    word: str,
    *,
    named: bool,
    location: int | None = None,
) -> None:
    if item.table is not None:
        if item.nullable:
            raise scope.shared.error(
                f"{word} cannot be applied to the nullable side of an outer join", "0A000", location
            )
        locks.add(key_of(scope, item), item.table, strength, policy)
        return
    if isinstance(item, SubqueryItem):
        raise scope.shared.unsupported(f"{word} of a subquery or view", location)
    if isinstance(item, VirtualItem):
        return
    if named:
        kinds = {
            FunctionItem: "a function", CteItem: "a WITH query", RelationItem: "VALUES", JoinItem: "a join",
        }  # fmt: skip
        raise scope.shared.error(
            f"{word} cannot be applied to {kinds[type(item)]}", "0A000", location
        )
