"""GROUP BY: rows fall into groups by hashed keys, each group has a state for each aggregate.

A batch is first divided among its groups; then each aggregate takes a group's rows in one loop. Aggregates with
DISTINCT or ORDER BY, ordered-set and hypothetical-set ones collect their input and end in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Protocol

from shardforge.errors import unsupported
from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression
from shardforge.sql.execute.context import Account, Row, Run
from shardforge.sql.execute.expressions import (
    Layout,
    compile_expression,
    compile_optional,
)
from shardforge.sql.execute.operators import Batches, Operator, chunks
from shardforge.sql.execute.rows import key_function
from shardforge.sql.execute.sorting import order_key
from shardforge.sql.functions.aggregates import AggregateImplementation, aggregate
from shardforge.sql.functions.ordered_set import hypothetical_set
from shardforge.sql.types.registry import format_type, sort_key

STATE_BYTES = 200


class Accumulator(Protocol):
    """One aggregate call, compiled."""

    def begin(self, ctx: Any) -> Any: ...
    def add(self, state: Any, rows: Sequence[Row], ctx: Any) -> Any: ...
    def end(self, state: Any, ctx: Any) -> Any: ...


def accumulator(call: tree.AggregateCall, layout: Layout) -> Accumulator:
    """The accumulator of an aggregate call."""
    if call.direct_args and hypothetical_set(call.name) is not None:
        return _Hypothetical(call, layout)
    direct = tuple(arg.type for arg in call.direct_args)
    if call.direct_args or (call.order_by and not call.args):
        types = direct + tuple(key.expression.type for key in call.order_by)
    else:
        types = tuple(arg.type for arg in call.args)
    found = aggregate(call.name, types, call.type)
    if found is None and (call.direct_args or call.order_by):
        found = aggregate(call.name, types[len(direct) :] + direct, call.type)
    if found is None:
        names = ", ".join(format_type(oid) for oid in types)
        raise unsupported(f"aggregate {call.name}({names})")
    if call.distinct or call.order_by or found.ordered_set:
        return _Collected(call, found, layout)
    if call.filter is None and found.strict and not found.needs_context and len(call.args) == 1:
        return _OneArgument(call, found, layout)
    if call.star and call.filter is None and call.name == "count":
        return _CountRows()
    return _Plain(call, found, layout)


class _CountRows:
    """count(*)."""

    def begin(self, ctx: Any) -> int:
        return 0

    def add(self, state: int, rows: Sequence[Row], ctx: Any) -> int:
        return state + len(rows)

    def end(self, state: int, ctx: Any) -> int:
        return state


class _OneArgument:
    """A strict aggregate of one argument."""

    def __init__(
        self, call: tree.AggregateCall, found: AggregateImplementation, layout: Layout
    ) -> None:
        self._found = found
        self._argument = compile_expression(call.args[0], layout)

    def begin(self, ctx: Any) -> Any:
        return self._found.init()

    def add(self, state: Any, rows: Sequence[Row], ctx: Any) -> Any:
        step, argument = self._found.step, self._argument
        for row in rows:
            value = argument(row, ctx)
            if value is not None:
                state = step(state, value)
        return state

    def end(self, state: Any, ctx: Any) -> Any:
        return self._found.final(state)


class _Plain:
    """Any other aggregate that takes rows as they come."""

    def __init__(
        self, call: tree.AggregateCall, found: AggregateImplementation, layout: Layout
    ) -> None:
        self._found = found
        self._arguments = [compile_expression(arg, layout) for arg in call.args]
        self._filter = compile_optional(call.filter, layout)

    def begin(self, ctx: Any) -> Any:
        return self._found.init(ctx.eval) if self._found.needs_context else self._found.init()

    def add(self, state: Any, rows: Sequence[Row], ctx: Any) -> Any:
        found, arguments, wanted = self._found, self._arguments, self._filter
        for row in rows:
            if wanted is None or wanted(row, ctx):
                values = [argument(row, ctx) for argument in arguments]
                if not (found.strict and None in values):
                    state = found.step(state, *values)
        return state

    def end(self, state: Any, ctx: Any) -> Any:
        return self._found.final(state)


class _Collected:
    """DISTINCT, ORDER BY, and ordered-set aggregates: the input is sorted first."""

    def __init__(
        self, call: tree.AggregateCall, found: AggregateImplementation, layout: Layout
    ) -> None:
        self._found = found
        self._distinct = call.distinct
        inputs = call.args
        if found.ordered_set:
            inputs = tuple(key.expression for key in call.order_by)
        self._arguments = [compile_expression(arg, layout) for arg in inputs]
        self._identity = key_function(inputs, layout)
        order_by = call.order_by
        if call.distinct and not order_by:
            order_by = tuple(
                tree.SortKey(arg, descending=False, nulls_first=False) for arg in inputs
            )
        self._order = [order_key(key, layout) for key in order_by]
        self._filter = compile_optional(call.filter, layout)
        self._direct = [compile_expression(arg, layout) for arg in call.direct_args]

    def begin(self, ctx: Any) -> list[tuple[Any, Any, Any]]:
        return []

    def add(self, state: Any, rows: Sequence[Row], ctx: Any) -> Any:
        found, wanted = self._found, self._filter
        for row in rows:
            if wanted is not None and not wanted(row, ctx):
                continue
            values = [argument(row, ctx) for argument in self._arguments]
            if found.strict and None in values:
                continue
            identity = self._identity(row, ctx) if self._distinct else None
            state.append(([order(row, ctx) for order in self._order], identity, values))
            ctx.hold_bytes(STATE_BYTES)
        return state

    def end(self, state: Any, ctx: Any) -> Any:
        found = self._found
        state.sort(key=_first)
        result = found.init(ctx.eval) if found.needs_context else found.init()
        seen = set()
        for _, identity, values in state:
            if self._distinct:
                if identity in seen:
                    continue
                seen.add(identity)
            result = found.step(result, *values)
        if found.ordered_set:
            return found.final(result, *[direct((), ctx) for direct in self._direct])
        return found.final(result)


def _first(item: tuple[Any, ...]) -> Any:
    return item[0]


class _Hypothetical:
    """rank(args) WITHIN GROUP (ORDER BY ...): where a row of the arguments would stand."""

    def __init__(self, call: tree.AggregateCall, layout: Layout) -> None:
        compute = hypothetical_set(call.name)
        assert compute is not None, "checked by the caller"
        self._compute = compute
        self._order = [order_key(key, layout) for key in call.order_by]
        self._filter = compile_optional(call.filter, layout)
        probe = {ColumnId(-1 - place): place for place in range(len(call.direct_args))}
        self._direct = [compile_expression(arg, layout) for arg in call.direct_args]
        self._probe = [
            order_key(
                tree.SortKey(
                    tree.ColumnRef(ColumnId(-1 - place), key.expression.type),
                    key.descending,
                    key.nulls_first,
                ),
                probe,
            )
            for place, key in enumerate(call.order_by)
        ]

    def begin(self, ctx: Any) -> list[Any]:
        return []

    def add(self, state: Any, rows: Sequence[Row], ctx: Any) -> Any:
        for row in rows:
            if self._filter is None or self._filter(row, ctx):
                state.append([order(row, ctx) for order in self._order])
                ctx.hold_bytes(STATE_BYTES)
        return state

    def end(self, state: Any, ctx: Any) -> Any:
        values = tuple([direct((), ctx) for direct in self._direct])
        wanted = [order(values, ctx) for order in self._probe]
        before = [key for key in state if key < wanted]
        peers = sum(key == wanted for key in state)
        distinct = len({tuple(key) for key in before})
        return self._compute(len(state), len(before), peers, distinct)


class Aggregate(Operator):
    """Groups and their aggregates; with grouping sets, once for each set."""

    def __init__(
        self, columns: tuple[ColumnId, ...], source: Operator, keys: Sequence[Expression],
        calls: Sequence[tree.AggregateCall], sets: Sequence[Sequence[int]] | None,
        grouping: Sequence[Sequence[int]],
    ) -> None:  # fmt: skip
        super().__init__(columns)
        self._source = source
        self._keys = [compile_expression(key, source.layout) for key in keys]
        self._transforms = [sort_key(key.type) for key in keys]
        self._calls = [accumulator(call, source.layout) for call in calls]
        self._sets = [tuple(range(len(keys)))] if sets is None else [tuple(s) for s in sets]
        self._grouping = grouping

    async def batches(self, run: Run, goal: int | None = None) -> Batches:
        groups: list[dict[Any, tuple[Row, list[Any]]]] = [{} for _ in self._sets]
        with Account(run) as account:
            async with aclosing(self._source.batches(run)) as source:
                async for batch in source:
                    await run.breathe(len(batch))
                    before = run.memory
                    for places, found in zip(self._sets, groups, strict=True):
                        self._add(places, found, batch, run)
                    account.take_over(before)
            for places, found in zip(self._sets, groups, strict=True):
                if not places and not found:
                    states = [call.begin(run) for call in self._calls]
                    found[()] = ((None,) * len(self._keys), states)
                rows = self._finished(places, found, run)
                for batch in chunks(rows):
                    yield batch

    def _add(
        self, places: tuple[int, ...], groups: dict[Any, Any], batch: list[Row], run: Run
    ) -> None:
        calls = self._calls
        for key, (values, rows) in self._divided(places, batch, run).items():
            group = groups.get(key)
            if group is None:
                run.hold_bytes(STATE_BYTES * (1 + len(calls)))
                group = groups[key] = (values, [call.begin(run) for call in calls])
            states = group[1]
            for place, call in enumerate(calls):
                states[place] = call.add(states[place], rows, run)

    def _divided(
        self, places: tuple[int, ...], batch: list[Row], run: Run
    ) -> dict[Any, tuple[Row, list[Row]]]:
        """Key -> (the keys' values, rows); keys that are not in the set are NULL."""
        if not places:
            return {(): ((None,) * len(self._keys), batch)}
        divided: dict[Any, tuple[Row, list[Row]]] = {}
        keys, transforms = self._keys, self._transforms
        included = [place in places for place in range(len(keys))]
        simple = all(included) and not any(transforms)
        for row in batch:
            values = tuple(
                [
                    key(row, run) if wanted else None
                    for key, wanted in zip(keys, included, strict=True)
                ]
            )
            identity = values if simple else self._identity(values)
            found = divided.get(identity)
            if found is None:
                divided[identity] = (values, [row])
            else:
                found[1].append(row)
        return divided

    def _identity(self, values: Row) -> Row:
        return tuple(
            [
                value if transform is None or value is None else transform(value)
                for value, transform in zip(values, self._transforms, strict=True)
            ]
        )

    def _finished(
        self, places: tuple[int, ...], groups: dict[Any, tuple[Row, list[Any]]], run: Run
    ) -> list[Row]:
        masks = tuple(
            [
                sum((place not in places) << bit for bit, place in enumerate(reversed(offsets)))
                for offsets in self._grouping
            ]
        )
        calls = self._calls
        return [
            (
                *values,
                *[call.end(state, run) for call, state in zip(calls, states, strict=True)],
                *masks,
            )
            for values, states in groups.values()
        ]
