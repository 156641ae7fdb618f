"""What a history of a workload must satisfy, whatever happened to the cluster meanwhile. Pure functions.

An operation whose client heard nothing (`unknown`) may have taken effect at any time after it was begun, or never.
Source: Wing and Gong, Testing and verifying concurrent objects (1993); Lowe's memoisation of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

FOREVER = float("inf")


@dataclass(slots=True)
class Operation:
    """One operation on one key. `began` and `ended` are ranks in the order of events."""

    kind: str
    """"read" or "write"."""
    key: int
    value: Any
    began: float
    ended: float = FOREVER
    outcome: str = "unknown"
    """"ok", "refused" or "unknown"."""


def linearizable(operations: Sequence[Operation], initial: Any = None) -> bool:
    """Whether the operations on one register can be put in one order that respects time and values."""
    counted = [
        o for o in operations if o.outcome == "ok" or (o.kind == "write" and o.outcome == "unknown")
    ]
    counted.sort(key=lambda o: o.began)
    ends = [o.ended if o.outcome == "ok" else FOREVER for o in counted]
    required = sum(1 << i for i, o in enumerate(counted) if o.outcome == "ok")
    seen: set[tuple[int, Any]] = set()
    stack: list[tuple[int, Any]] = [(0, initial)]
    while stack:
        done, value = stack.pop()
        if done & required == required:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        horizon = min(end for i, end in enumerate(ends) if not done >> i & 1)
        for i, operation in enumerate(counted):
            if done >> i & 1:
                continue
            if operation.began > horizon:
                break
            if operation.kind == "write":
                stack.append((done | 1 << i, operation.value))
            elif operation.value == value:
                stack.append((done | 1 << i, value))
    return False


@dataclass(slots=True)
class Element:
    """One step of a transaction over lists: `values` is the one appended, or those read."""

    kind: str
    """"append" or "read"."""
    key: int
    values: list[int]


@dataclass(slots=True)
class Transaction:
    """A transaction over lists; `began` and `ended` as of an operation."""

    began: float
    ended: float = FOREVER
    outcome: str = "unknown"
    elements: list[Element] = field(default_factory=list)


def wrong_lists(
    transactions: Sequence[Transaction], final: Mapping[int, Sequence[int]]
) -> list[str]:
    """What is wrong with a history of transactions that read lists and append to them.

    `final` gives the order of the appends. Looked for: appends lost, doubled, or there though refused; halves of
    transactions; reads that are no prefix; and cycles of the dependencies, with those of real time among them.
    Source: Kingsbury and Alvaro, Elle (2020), section 4; Adya's G0, G1 and G2.
    """
    wrong = [
        f"list {key} has an element twice: {list(values)}"
        for key, values in final.items()
        if len(set(values)) != len(values)
    ]
    there = {(key, value) for key, values in final.items() for value in values}
    committed = []
    for transaction in transactions:
        appends = [(e.key, e.values[0]) for e in transaction.elements if e.kind == "append"]
        found = [append in there for append in appends]
        if transaction.outcome == "ok" and not all(found):
            wrong.append(f"{transaction} was acknowledged, and an append of it is lost")
        elif transaction.outcome == "refused" and any(found):
            wrong.append(f"{transaction} was refused, and an append of it is there")
        elif any(found) and not all(found):
            wrong.append(f"{transaction} is there by halves")
        if transaction.outcome == "ok" or any(found):
            committed.append(transaction)
    for transaction in committed:
        if transaction.outcome == "ok":
            wrong += _wrong_reads(transaction, final)
    return wrong or _cycles(committed, final)


def _wrong_reads(transaction: Transaction, final: Mapping[int, Sequence[int]]) -> list[str]:
    wrong = []
    own: dict[int, list[int]] = {}
    for element in transaction.elements:
        mine = own.setdefault(element.key, [])
        if element.kind == "append":
            mine += element.values
        elif element.values != list(final[element.key][: len(element.values)]):
            wrong.append(f"list {element.key} was read as {element.values}, which is no prefix")
        elif element.values[len(element.values) - len(mine) :] != mine:
            wrong.append(f"list {element.key} was read without the reader's own appends")
    return wrong


def _cycles(committed: Sequence[Transaction], final: Mapping[int, Sequence[int]]) -> list[str]:
    """The transactions on cycles, if there are any."""
    writer = {
        (e.key, e.values[0]): number
        for number, transaction in enumerate(committed)
        for e in transaction.elements
        if e.kind == "append"
    }
    after: dict[int, set[int]] = {number: set() for number in range(len(committed))}

    def follows(earlier: int, later: int) -> None:
        if earlier != later:
            after[earlier].add(later)

    for key, values in final.items():
        for one, next_one in pairwise(values):
            follows(writer[key, one], writer[key, next_one])
    for number, transaction in enumerate(committed):
        if transaction.outcome != "ok":
            continue  # what it read was never told
        for element in transaction.elements:
            if element.kind == "read":
                seen, values = len(element.values), final[element.key]
                if seen:
                    follows(writer[element.key, values[seen - 1]], number)
                if seen < len(values):
                    follows(number, writer[element.key, values[seen]])
    _follow_time(committed, after)
    left = _on_cycles(after)
    names = [str(committed[number]) for number in left if number < len(committed)]
    return [f"these transactions have no order: {'; '.join(names)}"] if names else []


def _follow_time(committed: Sequence[Transaction], after: dict[int, set[int]]) -> None:
    """Who ended before another began comes first; moments are nodes of their own, so that the edges stay few."""
    moments: list[tuple[float, int, bool]] = []
    for number, transaction in enumerate(committed):
        moments.append((transaction.began, number, True))
        if transaction.outcome == "ok":
            moments.append((transaction.ended, number, False))
    before: int | None = None
    for _, number, begins in sorted(moments):
        if begins:
            if before is not None:
                after[before].add(number)
            continue
        moment = len(after)
        after[moment] = set()
        after[number].add(moment)
        if before is not None:
            after[before].add(moment)
        before = moment


def _on_cycles(after: Mapping[int, set[int]]) -> list[int]:
    """What is left when everything without predecessors, and then without successors, is taken away again and again."""
    left = dict(after)
    for graph in (dict(after), _reversed(after)):
        degree = dict.fromkeys(graph, 0)
        for targets in graph.values():
            for target in targets:
                degree[target] += 1
        free = [number for number, count in degree.items() if not count]
        while free:
            number = free.pop()
            left.pop(number, None)
            for target in graph[number]:
                degree[target] -= 1
                if not degree[target]:
                    free.append(target)
    return sorted(left)


def _reversed(after: Mapping[int, set[int]]) -> dict[int, set[int]]:
    graph: dict[int, set[int]] = {number: set() for number in after}
    for number, targets in after.items():
        for target in targets:
            graph[target].add(number)
    return graph
