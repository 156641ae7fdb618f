"""Evaluation of jsonpath over jsonb trees.

Lax mode unwraps arrays where a step expects their elements, wraps single values where it expects an array, and
forgives missing structure; strict mode does neither. Predicates are three-valued: None is unknown, and an error
inside one makes it unknown. Source: PostgreSQL 15, section 9.16.2, and src/backend/utils/adt/jsonpath_exec.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.functions.json_binary import type_name
from shardforge.sql.functions.jsonpath_regex import compile_regex
from shardforge.sql.functions.numeric import (
    numeric_abs,
    numeric_add,
    numeric_ceil,
    numeric_div,
    numeric_floor,
    numeric_mod,
    numeric_mul,
    numeric_sub,
    numeric_uminus,
)
from shardforge.sql.types.json import json_number
from shardforge.sql.types.jsonpath import COMPARISONS, LAST_LEVEL, PREDICATES, JsonPath, PathNode
from shardforge.sql.types.values import JsonTree

_ARITHMETIC: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": numeric_add,
    "-": numeric_sub,
    "*": numeric_mul,
    "/": numeric_div,
    "%": numeric_mod,
}
_ROUNDING: dict[str, Callable[[Decimal], Decimal]] = {
    "abs": numeric_abs,
    "floor": numeric_floor,
    "ceiling": numeric_ceil,
}
_MEMBER = "2203A"
_ARRAY = "22039"
_SUBSCRIPT = "22033"
_NON_NUMERIC = "22036"
_SINGLETON = "22038"
_OBJECT = "2203C"
_NUMBER = "2203B"

SUPPRESSIBLE = ("22", "2203")
Truth = bool | None


def is_number(tree: JsonTree) -> bool:
    """Whether a tree is a number."""
    return isinstance(tree, Decimal)


class Evaluator:
    """One evaluation of one path: the root document, the variables and the mode."""

    def __init__(self, path: JsonPath, root: JsonTree, variables: JsonTree) -> None:
        self.path = path
        self.root = root
        self.variables = variables
        self.lax = path.lax
        self.forgiving = path.lax
        self.current: JsonTree = root
        self.sizes: list[int] = []

    def run(self) -> Iterator[JsonTree]:
        """The sequence the path selects, as far as it gets before an error."""
        return self.stream(self.path.root)

    def any_item(self, node: PathNode) -> bool:
        """Whether an expression selects anything; lax mode looks no further than the first item."""
        if not self.lax:
            return bool(self.items(node))
        if node.kind in ("plus", "minus"):
            return any(map(is_number, self.unwrapped(node.parts[0])))
        return next((True for _ in self.stream(node)), False)

    # Items ------------------------------------------------------------------------------------

    def items(self, node: PathNode) -> list[JsonTree]:
        """The whole sequence an expression denotes."""
        return list(self.stream(node))

    def stream(self, node: PathNode) -> Iterator[JsonTree]:
        """The sequence an expression denotes."""
        if node.kind == "path":
            for item in self.items(node.parts[0]):
                yield from self.follow(node.parts, 1, item, unwrap=self.lax)
        elif node.kind in ("plus", "minus"):
            yield from self.unary(node)
        else:
            yield self.value(node)

    def value(self, node: PathNode) -> JsonTree:
        """The one item of an expression that is neither a path nor a sign."""
        kind = node.kind
        if kind == "$":
            return self.root
        if kind == "@":
            return self.current
        if kind in ("string", "number"):
            constant: Any = node.value
            return constant  # type: ignore[no-any-return]
        if kind in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[kind]
        if kind == "variable":
            return self.variable(str(node.value))
        if kind == "last":
            return Decimal(self.sizes[-1] - 1)
        return self.truth(node) if kind in PREDICATES else self.arithmetic(node)

    def variable(self, name: str) -> JsonTree:
        assert isinstance(self.variables, dict), "checked by the functions"
        if name not in self.variables:
            raise QueryError(f'could not find jsonpath variable "{name}"', "42704")
        return self.variables[name]

    def unwrapped(self, node: PathNode) -> list[JsonTree]:
        """The sequence, arrays replaced by their elements in lax mode."""
        found = self.items(node)
        if not self.lax:
            return found
        out: list[JsonTree] = []
        for item in found:
            if isinstance(item, list):
                out.extend(item)
            else:
                out.append(item)
        return out

    def unary(self, node: PathNode) -> Iterator[JsonTree]:
        for item in self.unwrapped(node.parts[0]):
            if not isinstance(item, Decimal):
                sign = "+" if node.kind == "plus" else "-"
                raise QueryError(
                    f"operand of unary jsonpath operator {sign} is not a numeric value", _NUMBER
                )
            yield numeric_uminus(item) if node.kind == "minus" else item

    def arithmetic(self, node: PathNode) -> Decimal:
        operands: list[Decimal] = []
        for side, part in zip(("left", "right"), node.parts, strict=True):
            found = self.unwrapped(part)
            if len(found) != 1 or not isinstance(found[0], Decimal):
                raise QueryError(
                    f"{side} operand of jsonpath operator {node.kind} "
                    "is not a single numeric value",
                    _SINGLETON,
                )
            operands.append(found[0])
        return _ARITHMETIC[node.kind](*operands)

    # Steps ------------------------------------------------------------------------------------

    def follow(
        self, steps: tuple[PathNode, ...], at: int, item: JsonTree, *, unwrap: bool
    ) -> Iterator[JsonTree]:
        """What the steps from `at` on select, starting from one item."""
        if at == len(steps):
            yield item
            return
        step = steps[at]
        if unwrap and isinstance(item, list) and self.expects_elements(step):
            for element in item:
                yield from self.follow(steps, at, element, unwrap=False)
            return
        if step.kind == ".**":
            yield from self.descend(steps, at, item)
            return
        for found in self.step(step, item):
            yield from self.follow(steps, at + 1, found, unwrap=self.lax)

    def expects_elements(self, step: PathNode) -> bool:
        """Whether lax mode gives this step an array's elements in its place."""
        if step.kind == "method":
            assert isinstance(step.value, tuple), "a name and its template"
            return step.value[0] not in ("type", "size")
        return step.kind in ("key", ".*", "?")

    def step(self, step: PathNode, item: JsonTree) -> Iterator[JsonTree]:
        kind = step.kind
        if kind == "key":
            return self.member(str(step.value), item)
        if kind == ".*":
            return self.all_members(item)
        if kind == "[*]":
            return self.all_elements(item)
        if kind == "[]":
            return self.subscripts(step, item)
        if kind == "?":
            return self.filtered(step.parts[0], item)
        return self.method(step, item)

    def member(self, key: str, item: JsonTree) -> Iterator[JsonTree]:
        if isinstance(item, dict):
            if key in item:
                yield item[key]
            elif not self.forgiving:
                raise QueryError(f'JSON object does not contain key "{key}"', _MEMBER)
        elif not self.forgiving:
            raise QueryError("jsonpath member accessor can only be applied to an object", _MEMBER)

    def all_members(self, item: JsonTree) -> Iterator[JsonTree]:
        if isinstance(item, dict):
            yield from item.values()
        elif not self.forgiving:
            raise QueryError(
                "jsonpath wildcard member accessor can only be applied to an object", _OBJECT
            )

    def all_elements(self, item: JsonTree) -> Iterator[JsonTree]:
        if isinstance(item, list):
            yield from item
        elif self.lax:
            yield item
        elif not self.forgiving:
            raise QueryError(
                "jsonpath wildcard array accessor can only be applied to an array", _ARRAY
            )

    def subscripts(self, step: PathNode, item: JsonTree) -> Iterator[JsonTree]:
        if not isinstance(item, list):
            if not self.lax:
                if self.forgiving:
                    return
                raise QueryError("jsonpath array accessor can only be applied to an array", _ARRAY)
            item = [item]
        self.sizes.append(len(item))
        try:
            for part in step.parts:
                low = self.index(part.parts[0])
                high = self.index(part.parts[1]) if len(part.parts) > 1 else low
                if not self.forgiving and not 0 <= low <= high < len(item):
                    raise QueryError("jsonpath array subscript is out of bounds", _SUBSCRIPT)
                for index in range(max(low, 0), min(high, len(item) - 1) + 1):
                    yield item[index]
        finally:
            self.sizes.pop()

    def index(self, node: PathNode) -> int:
        found = self.items(node)
        if len(found) != 1 or not isinstance(found[0], Decimal):
            raise QueryError("jsonpath array subscript is not a single numeric value", _SUBSCRIPT)
        index = int(found[0])
        if not -(2**31) <= index < 2**31:
            raise QueryError("jsonpath array subscript is out of integer range", _SUBSCRIPT)
        return index

    def filtered(self, predicate: PathNode, item: JsonTree) -> Iterator[JsonTree]:
        with self.at_current(item):
            kept = self.truth(predicate)
        if kept:
            yield item

    @contextmanager
    def at_current(self, item: JsonTree) -> Iterator[None]:
        before, self.current = self.current, item
        try:
            yield
        finally:
            self.current = before

    def descend(self, steps: tuple[PathNode, ...], at: int, item: JsonTree) -> Iterator[JsonTree]:
        """The .** step: the item and everything inside it, between two levels."""
        levels: Any = steps[at].value
        low, high = levels
        for level, found in self.within(item, 0, high):
            below = isinstance(found, dict | list)
            reached = not below and level > 0 if low == LAST_LEVEL else level >= low
            if reached:
                before, self.forgiving = self.forgiving, True
                try:
                    results = list(self.follow(steps, at + 1, found, unwrap=self.lax))
                finally:
                    self.forgiving = before
                yield from results

    def within(self, item: JsonTree, level: int, high: int) -> Iterator[tuple[int, JsonTree]]:
        yield level, item
        if high != LAST_LEVEL and level >= high:
            return
        inside = item.values() if isinstance(item, dict) else item
        if isinstance(item, dict | list):
            assert not isinstance(inside, str | bool | Decimal | None), "a container"
            for inner in inside:
                yield from self.within(inner, level + 1, high)

    # Methods ----------------------------------------------------------------------------------

    def method(self, step: PathNode, item: JsonTree) -> Iterator[JsonTree]:
        assert isinstance(step.value, tuple), "a name and its template"
        name = step.value[0]
        if name == "type":
            yield type_name(item)
        elif name == "size":
            yield from self.size(item)
        elif name == "double":
            yield self.double(item)
        elif name in _ROUNDING:
            if not isinstance(item, Decimal):
                raise QueryError(
                    f"jsonpath item method .{name}() can only be applied to a numeric value",
                    _NON_NUMERIC,
                )
            yield _ROUNDING[name](item)
        else:
            raise unsupported(f"jsonpath item method .{name}()")

    def size(self, item: JsonTree) -> Iterator[JsonTree]:
        if isinstance(item, list):
            yield Decimal(len(item))
        elif self.lax:
            yield Decimal(1)
        elif not self.forgiving:
            raise QueryError("jsonpath item method .size() can only be applied to an array", _ARRAY)

    def double(self, item: JsonTree) -> Decimal:
        if isinstance(item, Decimal):
            if abs(float(item)) == float("inf"):
                raise QueryError(
                    "numeric argument of jsonpath item method .double() is out of range "
                    "for type double precision",
                    _NON_NUMERIC,
                )
            return item
        if not isinstance(item, str):
            raise QueryError(
                "jsonpath item method .double() can only be applied to a string or numeric value",
                _NON_NUMERIC,
            )
        try:
            value = float(item) if "_" not in item else float("nan")
        except ValueError:
            value = float("nan")
        if value != value or abs(value) == float("inf"):
            raise QueryError(
                "string argument of jsonpath item method .double() is not a valid "
                "representation of a double precision number",
                _NON_NUMERIC,
            )
        return json_number(repr(value).removesuffix(".0"))

    # Predicates -------------------------------------------------------------------------------

    def truth(self, node: PathNode) -> Truth:
        """True, False, or None for unknown."""
        kind = node.kind
        if kind == "&&":
            left = self.truth(node.parts[0])
            return False if left is False else _and(left, self.truth(node.parts[1]))
        if kind == "||":
            left = self.truth(node.parts[0])
            return True if left else _or(left, self.truth(node.parts[1]))
        if kind == "!":
            inner = self.truth(node.parts[0])
            return None if inner is None else not inner
        if kind == "is unknown":
            return self.truth(node.parts[0]) is None
        if kind == "exists":
            return self.exists(node.parts[0])
        try:
            return self.compare(node)
        except QueryError as error:
            if not error.sqlstate.startswith(SUPPRESSIBLE):
                raise
            return None

    def exists(self, node: PathNode) -> Truth:
        try:
            return self.any_item(node)
        except QueryError as error:
            if not error.sqlstate.startswith(SUPPRESSIBLE):
                raise
            return None

    def compare(self, node: PathNode) -> Truth:
        left = self.unwrapped(node.parts[0])
        test: Callable[[JsonTree, JsonTree], Truth]
        if node.kind == "like_regex":
            assert isinstance(node.value, tuple), "a pattern and its flags"
            regex = compile_regex(*node.value)
            test = lambda item, _other: _like(regex, item)  # noqa: E731
            right: list[JsonTree] = [None]
        elif node.kind == "starts with":
            test = _starts_with
            right = self.items(node.parts[1])
        else:
            operator = node.kind
            assert operator in COMPARISONS, "the other predicates were handled"
            test = lambda a, b: compare_items(operator, a, b)  # noqa: E731
            right = self.unwrapped(node.parts[1])
        return self.any_pair(test, left, right)

    def any_pair(
        self,
        test: Callable[[JsonTree, JsonTree], Truth],
        left: list[JsonTree],
        right: list[JsonTree],
    ) -> Truth:
        """Whether any pair passes; in strict mode one that cannot be tested makes all unknown."""
        found = unknown = False
        for a in left:
            for b in right:
                passed = test(a, b)
                if passed is None:
                    if not self.lax:
                        return None
                    unknown = True
                elif passed:
                    if self.lax:
                        return True
                    found = True
        if found:
            return True
        return None if unknown else False


def _and(a: Truth, b: Truth) -> Truth:
    if b is False:
        return False
    return None if a is None or b is None else True


def _or(a: Truth, b: Truth) -> Truth:
    if b:
        return True
    return None if a is None or b is None else False


def _like(regex: Any, item: JsonTree) -> Truth:
    return regex.search(item) is not None if isinstance(item, str) else None


def _starts_with(item: JsonTree, prefix: JsonTree) -> Truth:
    if not isinstance(item, str) or not isinstance(prefix, str):
        return None
    return item.startswith(prefix)


def compare_items(operator: str, a: JsonTree, b: JsonTree) -> Truth:
    """One comparison; unknown for values of different kinds, except that null differs from everything."""
    if type_name(a) != type_name(b):
        return operator == "!=" if a is None or b is None else None
    if isinstance(a, dict | list):
        return None
    if a is None:
        order = 0
    else:
        left: Any = a
        right: Any = b
        order = (left > right) - (left < right)
    return {
        "==": order == 0,
        "!=": order != 0,
        "<": order < 0,
        ">": order > 0,
        "<=": order <= 0,
        ">=": order >= 0,
    }[operator]
