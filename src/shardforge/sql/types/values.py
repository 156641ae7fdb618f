"""The Python values of SQL types that Python has no fitting type for: intervals, timetz, arrays, jsonb.

All are immutable and hashable, and compare as PostgreSQL does (interval only by its sort key: two unequal
intervals can be equal in SQL). They know nothing of text or binary formats.
Source: PostgreSQL 15, src/include/datatype/timestamp.h, src/backend/utils/adt/jsonb_util.c (compareJsonbContainers).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import total_ordering
from typing import Any, NamedTuple, TypeAlias

from shardforge.storage import valuecodec

JsonTree: TypeAlias = "dict[str, JsonTree] | list[JsonTree] | str | Decimal | bool | None"


class Interval(NamedTuple):
    """Months, days and microseconds, kept apart. Its order in SQL is `sort_key`'s, not the tuple's."""

    months: int
    days: int
    micros: int


class TimeTz(NamedTuple):
    """A time of day with its zone in seconds WEST of UTC. Its order in SQL is `sort_key`'s."""

    micros: int
    zone: int


class Record(tuple[Any, ...]):
    """A row value that knows its fields' types and names, as a record needs to be written out or compared.

    It is a tuple in every other respect; ROW(...) and whole-row references make it.
    """

    types: tuple[int, ...]
    names: tuple[str, ...]

    def __new__(
        cls, values: Iterable[Any], types: tuple[int, ...], names: tuple[str, ...] = ()
    ) -> Record:
        """A row of `values`; fields without names are called f1, f2, ..."""
        self = super().__new__(cls, values)
        self.types = types
        self.names = names or tuple(f"f{n}" for n in range(1, len(types) + 1))
        return self


class Array:
    """An SQL array: elements row-major, one length and one lower bound per dimension (none when empty)."""

    __slots__ = ("dims", "elements", "lower")

    def __init__(
        self,
        elements: tuple[Any, ...],
        dims: tuple[int, ...] | None = None,
        lower: tuple[int, ...] | None = None,
    ) -> None:
        self.elements = elements
        if dims is None:
            dims = (len(elements),) if elements else ()
        self.dims = dims
        self.lower = (1,) * len(dims) if lower is None else lower

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Array)
            and self.elements == other.elements
            and self.dims == other.dims
            and self.lower == other.lower
        )

    def __hash__(self) -> int:
        return hash((self.elements, self.dims, self.lower))

    def __len__(self) -> int:
        return len(self.elements)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.elements)

    def __repr__(self) -> str:
        return f"Array({self.elements!r}, {self.dims!r}, {self.lower!r})"


_NULL, _STRING, _NUMBER, _BOOLEAN, _ARRAY, _OBJECT = range(6)


def json_key_order(key: str) -> tuple[int, bytes]:
    """The order of object keys in jsonb: by length in bytes, then bytewise."""
    data = key.encode()
    return len(data), data


def _sort_key(value: JsonTree) -> tuple[Any, ...]:
    """A key whose order is jsonb's: Object > Array > Boolean > Number > String > Null, sizes before contents."""
    if value is None:
        return (_NULL,)
    if isinstance(value, str):
        return (_STRING, value)
    if isinstance(value, bool):
        return (_BOOLEAN, value)
    if isinstance(value, list):
        # A historic quirk that the real thing keeps: an empty top-level array sorts below null.
        return (_ARRAY, len(value), tuple(_sort_key(item) for item in value))
    if isinstance(value, dict):
        pairs: list[Any] = []
        for key, item in value.items():
            pairs.append((_STRING, key))
            pairs.append(_sort_key(item))
        return (_OBJECT, len(value), tuple(pairs))
    return (_NUMBER, value)


@total_ordering
class Jsonb:
    """A jsonb value. `value` is a tree whose objects hold their keys in `json_key_order`, each key once."""

    __slots__ = ("_key", "value")

    def __init__(self, value: JsonTree) -> None:
        self.value = value
        self._key: tuple[Any, ...] | None = None

    def sort_key(self) -> tuple[Any, ...]:
        """A hashable key in jsonb's order."""
        if self._key is None:
            value = self.value
            if isinstance(value, list) and not value:
                self._key = (-1,)
            else:
                self._key = _sort_key(value)
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Jsonb) and self.sort_key() == other.sort_key()

    def __lt__(self, other: Jsonb) -> bool:
        return self.sort_key() < other.sort_key()

    def __hash__(self) -> int:
        return hash(self.sort_key())

    def __repr__(self) -> str:
        return f"Jsonb({self.value!r})"


# Storage decodes rows but must not import upwards; here it learns what to make.
valuecodec.use_classes(interval=Interval, timetz=TimeTz, jsonb=Jsonb, array=Array)
