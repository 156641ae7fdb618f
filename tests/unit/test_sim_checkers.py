"""The judges of simulated histories, on small histories whose verdict is known."""

from __future__ import annotations

import pytest

from shardforge.sim.checkers import Element, Operation, Transaction, linearizable, wrong_lists


def _write(value: int, began: float, ended: float, outcome: str = "ok") -> Operation:
    return Operation("write", 0, value, began, ended, outcome)


def _read(value: int | None, began: float, ended: float) -> Operation:
    return Operation("read", 0, value, began, ended, "ok")


@pytest.mark.parametrize(
    ("history", "verdict"),
    [
        ([_read(None, 1, 2), _write(1, 3, 4), _read(1, 5, 6)], True),
        ([_write(1, 1, 2), _read(None, 3, 4)], False),  # stale
        ([_write(1, 1, 4), _read(None, 2, 3)], True),  # concurrent
        ([_write(1, 1, 10), _read(1, 2, 3), _read(None, 4, 5)], False),  # back in time
        ([_write(1, 1, 2, "unknown"), _read(None, 3, 4), _read(1, 5, 6)], True),  # later, but once
        ([_write(1, 1, 2, "unknown"), _read(1, 3, 4), _read(None, 5, 6)], False),
        ([_write(1, 1, 2, "refused"), _read(1, 3, 4)], False),
        ([_write(1, 1, 2), _write(2, 1, 2), _read(1, 3, 4), _read(2, 5, 6)], False),
    ],
)
def test_registers(history: list[Operation], verdict: bool) -> None:
    assert linearizable(history) is verdict


def _txn(began: float, ended: float, *elements: Element, outcome: str = "ok") -> Transaction:
    return Transaction(began, ended, outcome, list(elements))


def _append(key: int, value: int) -> Element:
    return Element("append", key, [value])


def _saw(key: int, *values: int) -> Element:
    return Element("read", key, list(values))


@pytest.mark.parametrize(
    ("history", "final", "part"),
    [
        ([_txn(1, 2, _append(0, 1)), _txn(3, 4, _saw(0, 1))], {0: [1]}, ""),
        ([_txn(1, 2, _append(0, 1))], {0: []}, "lost"),
        ([_txn(1, 2, _append(0, 1), outcome="refused")], {0: [1]}, "refused"),
        ([_txn(1, 2, _append(0, 1), _append(1, 2), outcome="unknown")], {0: [1], 1: []}, "halves"),
        ([_txn(1, 2, _append(0, 1)), _txn(3, 4, _saw(0))], {0: [1]}, "no order"),  # stale
        ([_txn(1, 4, _append(0, 1)), _txn(2, 3, _saw(0))], {0: [1]}, ""),
        ([_txn(1, 2, _append(0, 1), _saw(0))], {0: [1]}, "own appends"),
        # Write skew: each reads what the other had not yet written.
        (
            [_txn(1, 4, _saw(0), _append(1, 1)), _txn(2, 3, _saw(1), _append(0, 2))],
            {0: [2], 1: [1]},
            "no order",
        ),
        # A fractured read: the other's first write is seen, its second is not.
        (
            [_txn(1, 4, _append(0, 1), _append(1, 2)), _txn(2, 3, _saw(0, 1), _saw(1))],
            {0: [1], 1: [2]},
            "no order",
        ),
    ],
)
def test_lists(history: list[Transaction], final: dict[int, list[int]], part: str) -> None:
    wrong = wrong_lists(history, final)
    assert bool(wrong) is bool(part)
    assert part in " ".join(wrong)
