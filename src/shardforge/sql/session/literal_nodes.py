"""The literals of a text found again in its parse tree, and replaced by parameters there.

A literal is lifted only where the tree has a constant of its value at its place, and never where the grammar or the
binder takes a constant for something else than a value: ordinals, LIMIT, type modifiers, the fields of an interval, and
the predicate by which ON CONFLICT finds an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardforge.sql.parse import Literal, Node, Value

_VERBATIM = frozenset({"typeName", "limitCount", "infer", "colDeflist", "coldeflist"})
"""Fields under which nothing is lifted."""
_ORDINALS = frozenset({"groupClause", "distinctClause", "content"})
"""Lists in which a bare constant is the number of a column (`content`: of a grouping set)."""


class LiteralNodes:
    """Where the constants of a tree come from."""

    def __init__(self, places: Sequence[Literal], values: Sequence[Value]) -> None:
        self._values = values
        self._sites: dict[int, tuple[int, bool]] = {}
        for index, place in enumerate(places):
            self._sites[place.location] = (index, False)
            if place.minus >= 0:
                self._sites[place.minus] = (index, True)

    def lift(self, node: Node, kept: set[int]) -> tuple[Node, dict[int, bool]]:
        """The tree with a parameter for each literal not in `kept`.

        The second result tells, for each literal replaced, whether the grammar made a minus sign part of it.
        """
        found: dict[int, bool] = {}
        lifted: Node = self._inside(node, kept, found)
        return lifted, found

    def _inside(self, value: Any, kept: set[int], found: dict[int, bool]) -> Any:
        if isinstance(value, list):
            return [self._inside(item, kept, found) for item in value]
        if not isinstance(value, dict):
            return value
        if "A_Const" in value:
            return self._constant(value, kept, found)
        made = {}
        for name, inner in value.items():
            if (
                name in _VERBATIM
                or (name == "SortBy" and "A_Const" in inner["node"])
                or (name == "TypeCast" and "typmods" in inner["typeName"] and _interval(inner))
            ):
                made[name] = inner
            elif name in _ORDINALS and isinstance(inner, list):
                made[name] = [
                    item if "A_Const" in item else self._inside(item, kept, found) for item in inner
                ]
            else:
                made[name] = self._inside(inner, kept, found)
        return made

    def _constant(self, node: Node, kept: set[int], found: dict[int, bool]) -> Node:
        constant = node["A_Const"]
        location = constant.get("location", 0)
        site = self._sites.get(location)
        if site is None or site[0] in kept or not self._agrees(constant, *site):
            return node
        index, negative = site
        found[index] = negative
        return {"ParamRef": {"number": index + 1, "location": location}}

    def _agrees(self, constant: Node, index: int, negative: bool) -> bool:
        value = self._values[index]
        if isinstance(value, int):
            value = -value if negative else value
            if "ival" in constant:
                return bool(constant["ival"].get("ival", 0) == value)
            return bool(constant.get("fval", {}).get("fval") == str(value))
        if "sval" in constant:
            return not negative and bool(constant["sval"].get("sval", "") == value)
        text = f"-{value}" if negative else value
        return bool(constant.get("fval", {}).get("fval") == text)


def _interval(cast: Node) -> bool:
    names = cast["typeName"].get("names") or [{}]
    return bool(names[-1].get("String", {}).get("sval") == "interval")
