"""The row lock table: conflicts, re-entrance, upgrades, order, and deadlock search."""

from __future__ import annotations

import itertools

import pytest

from shardforge.ids import TxnId
from shardforge.txn.deadlock import choose_victim, find_cycle
from shardforge.txn.locks import LockStrength, LockTable

KS, S, NKU, U = LockStrength
A, B, C, D = (TxnId(number) for number in range(1, 5))
ROW = b"row"

# PostgreSQL 15, table 13.3: which pairs conflict.
POSTGRES_CONFLICTS = {(KS, U), (S, NKU), (S, U), (NKU, S), (NKU, NKU), (NKU, U)} | {
    (U, other) for other in LockStrength
}


class Requests:
    """A lock table and the order in which waiters were granted."""

    def __init__(self) -> None:
        self.table = LockTable()
        self.granted: list[TxnId] = []

    def want(self, txn: TxnId, strength: LockStrength, key: bytes = ROW):
        if self.table.acquire(key, txn, strength):
            return None
        waiter = self.table.enqueue(key, txn, strength, lambda: self.granted.append(txn))
        self.table.check()
        return waiter

    def release(self, txn: TxnId, key: bytes = ROW) -> None:
        self.table.release(key, txn)
        self.table.check()


@pytest.mark.parametrize(("held", "wanted"), list(itertools.product(LockStrength, repeat=2)))
def test_conflicts_are_postgresqls(held, wanted):
    table = LockTable()
    assert table.acquire(ROW, A, held)
    assert table.acquire(ROW, B, wanted) is ((held, wanted) not in POSTGRES_CONFLICTS)


def test_a_holder_may_lock_again_and_more_strongly():
    table = LockTable()
    assert table.acquire(ROW, A, KS)
    assert table.acquire(ROW, A, U)
    assert table.acquire(ROW, A, S)
    assert table.holds(ROW, A) == U


def test_release_grants_in_order_and_all_that_fit():
    requests = Requests()
    requests.want(A, U)
    requests.want(B, S)
    requests.want(C, S)
    requests.want(D, U)
    requests.release(A)
    assert requests.granted == [B, C]
    requests.release(B)
    assert requests.granted == [B, C]
    requests.release(C)
    assert requests.granted == [B, C, D]
    requests.release(D)
    assert len(requests.table) == 0


def test_a_new_request_does_not_overtake_a_conflicting_waiter():
    requests = Requests()
    requests.want(A, S)
    requests.want(B, U)
    assert requests.want(C, S) is not None, "the share lock would starve the waiting update lock"
    requests.release(A)
    assert requests.granted == [B]


def test_an_upgrade_goes_before_the_queue():
    requests = Requests()
    requests.want(A, S)
    requests.want(B, S)
    requests.want(C, U)
    assert requests.want(A, U) is not None
    requests.release(B)
    assert requests.granted == [A]
    requests.release(A)
    assert requests.granted == [A, C]


def test_a_cancelled_waiter_lets_those_behind_it_go():
    requests = Requests()
    requests.want(A, S)
    waiter = requests.want(B, U)
    requests.want(C, S)
    requests.table.cancel(waiter)
    assert requests.granted == [C]
    assert requests.table.waiting == 0
    requests.table.cancel(waiter)
    requests.table.check()


def test_downgrade_lets_others_in():
    requests = Requests()
    requests.want(A, KS)
    requests.want(A, U)
    requests.want(B, S)
    requests.table.downgrade(ROW, A, KS)
    assert requests.granted == [B]


def test_release_by_a_stranger_changes_nothing():
    requests = Requests()
    requests.want(A, U)
    requests.release(B)
    assert requests.table.holds(ROW, A) == U


def test_blockers_are_holders_and_earlier_waiters():
    requests = Requests()
    requests.want(A, KS)
    first = requests.want(B, U)
    second = requests.want(C, U)
    assert set(requests.table.blockers(first)) == {A}
    assert set(requests.table.blockers(second)) == {A, B}


@pytest.mark.parametrize(
    ("edges", "start", "cycle"),
    [
        ({1: [2]}, 1, []),
        ({1: [2], 2: [1]}, 1, [1, 2]),
        ({1: [3, 2], 3: [4], 2: [5], 5: [1]}, 1, [1, 2, 5]),
        ({1: [2], 2: [3], 3: [2]}, 1, []),
        ({1: [2, 3], 2: [3], 3: []}, 1, []),
    ],
    ids=["none", "two", "longer", "another's", "diamond"],
)
def test_cycles(edges, start, cycle):
    assert find_cycle(TxnId(start), lambda txn: edges.get(txn, [])) == cycle


def test_the_victim_is_the_youngest():
    assert choose_victim([TxnId(7), TxnId(9), TxnId(8)]) == 9
