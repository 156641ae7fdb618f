"""Deadlocks: cycles of the waits-for graph, looked for at the moment a wait begins.

A new cycle contains the wait that closed it: waits only end otherwise, and a request that goes to the head
of a queue already held the row. So one search from the new waiter finds every deadlock at once, with no
timeout to tune. The graph is given as a function; whose turn it is, is the lock table's business.
PURE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from shardforge.ids import TxnId

_COUNTER_MASK = (1 << 48) - 1


def find_cycle(start: TxnId, waits_for: Callable[[TxnId], Iterable[TxnId]]) -> list[TxnId]:
    """The transactions of a cycle through `start`, in waiting order beginning with it; [] if none."""
    path = [start]
    pending = [iter(waits_for(start))]
    seen = {start}
    while pending:
        follower = next(pending[-1], None)
        if follower is None:
            pending.pop()
            path.pop()
        elif follower == start:
            return path
        elif follower not in seen:
            seen.add(follower)
            path.append(follower)
            pending.append(iter(waits_for(follower)))
    return []


def choose_victim(cycle: Sequence[TxnId]) -> TxnId:
    """The youngest transaction: the one with the least work to lose, and never the same one for ever.

    Ages of different nodes are compared by their counters; any total order would be sound.
    """
    return max(cycle, key=lambda txn: (txn & _COUNTER_MASK, txn))
