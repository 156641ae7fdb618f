"""The lock table under any sequence of requests: no conflicting holders, nobody waits without a reason."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardforge.txn.locks import CONFLICTS, LockStrength, LockTable

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lock", "lock", "lock", "release", "cancel", "downgrade"]),
        st.integers(1, 4),
        st.sampled_from([b"x", b"y"]),
        st.sampled_from(list(LockStrength)),
    ),
    max_size=40,
)


@given(STEPS)
def test_holders_never_conflict_and_waiters_have_a_reason(steps):
    table = LockTable()
    waiters = {}
    for action, txn, key, strength in steps:
        if action == "lock" and txn not in waiters:
            if not table.acquire(key, txn, strength):
                waiters[txn] = table.enqueue(
                    key, txn, strength, lambda txn=txn: waiters.pop(txn) and None
                )
        elif action == "release":
            table.release(key, txn)
        elif action == "cancel" and txn in waiters:
            table.cancel(waiters.pop(txn))
        elif action == "downgrade" and (table.holds(key, txn) or 0) > strength:
            table.downgrade(key, txn, strength)
        table.check()
        for row in (b"x", b"y"):
            holds = list(table.holders(row))
            assert not any(
                CONFLICTS[one][other] for a, one in holds for b, other in holds if a != b
            )
    for waiter in list(waiters.values()):
        table.cancel(waiter)
    for row in (b"x", b"y"):
        for txn, _ in list(table.holders(row)):
            table.release(row, txn)
    assert len(table) == 0
