"""Labels of an enum: whatever is added where, their values and keys are in their order, and old ones never change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardforge.errors import QueryError
from shardforge.keys import ENUM_OIDS, key_encoder
from shardforge.sql.catalog.descriptors import Enum, EnumLabel
from shardforge.sql.ddl.enum_types import place_of
from shardforge.sql.types.values import Array
from shardforge.storage.rowcodec import RowCodec

MOOD = ENUM_OIDS.start + 2 * 20000
STEPS = st.lists(st.tuples(st.integers(0, 10**6), st.booleans(), st.booleans()), max_size=30)


def grown(enum: Enum, name: str, neighbor: str | None, *, after: bool) -> Enum:
    place, order = place_of(enum, neighbor, after=after)
    label = EnumLabel(len(enum.labels), name, order)
    return Enum(
        enum.id, enum.name, enum.schema_id, (*enum.labels[:place], label, *enum.labels[place:])
    )


@given(STEPS)
def test_values_and_keys_are_in_the_order_of_labels(steps: list[tuple[int, bool, bool]]) -> None:
    enum = Enum(MOOD, "mood", 2200, ())
    names: list[str] = []
    for number, (where, at_end, after) in enumerate(steps):
        before = {label.name: label.order for label in enum.labels}
        name = f"label {number}"
        if at_end or not names:
            names.append(name)
            enum = grown(enum, name, None, after=True)
        else:
            place = where % len(names)
            enum = grown(enum, name, names[place], after=after)
            names.insert(place + after, name)
        assert before.items() <= {label.name: label.order for label in enum.labels}.items()
    assert [label.name for label in enum.labels] == names
    orders = [label.order for label in enum.labels]
    assert orders == sorted(set(orders))
    up, down = key_encoder([(MOOD, False, False)]), key_encoder([(MOOD, True, False)])
    assert sorted(orders, key=lambda value: up([value])) == orders
    assert sorted(orders, key=lambda value: down([value])) == orders[::-1]
    codec = RowCodec([[(1, MOOD), (2, MOOD + 1)]])
    row = (orders[0] if orders else None, Array((*orders, None)))
    assert codec.decode(codec.encode(row)) == row


def test_there_is_an_end_to_halving_and_it_is_said() -> None:
    enum = Enum(MOOD, "mood", 2200, (EnumLabel(1, "a", 1.0), EnumLabel(2, "b", 2.0)))
    for number in range(52):
        enum = grown(enum, str(number), "b", after=False)
    with pytest.raises(QueryError, match="another label between"):
        grown(enum, "one more", "b", after=False)
