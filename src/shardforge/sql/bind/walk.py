"""Walking bound trees: what an expression refers to, what a relation yields, and rewriting. PURE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId, Expression, Relation

EXPRESSIONS: tuple[type, ...] = (
    *get_args(tree.Expression),
    tree.AggregateCall,
    tree.WindowCall,
    tree.SortKey,
)


_FIELDS: dict[type, tuple[str, ...]] = {}


def _names(kind: Any) -> tuple[str, ...]:
    found = _FIELDS.get(kind)
    if found is None:
        found = _FIELDS[kind] = tuple(field.name for field in fields(kind))
    return found


def field_names(kind: Any) -> tuple[str, ...] | None:
    """The fields of a dataclass; None for any other type."""
    return _names(kind) if is_dataclass(kind) else None


def nodes(value: Any) -> Iterator[Any]:
    """Every dataclass of the tree under `value`, itself first; descriptors of the catalog are not entered."""
    found: list[Any] = []
    _collect(value, found)
    return iter(found)


def _collect(value: Any, found: list[Any]) -> None:
    if isinstance(value, tuple | list):
        for item in value:
            _collect(item, found)
        return
    names = field_names(type(value))
    if names is not None:
        found.append(value)
        for name in names:
            inner = getattr(value, name)
            if inner is not None and type(inner) not in _LEAVES:
                _collect(inner, found)


_LEAVES = frozenset((int, str, bool, float, bytes))


def references(value: Any) -> set[ColumnId]:
    """Columns that expressions under `value` refer to, those of its own subqueries included."""
    return {node.column for node in nodes(value) if isinstance(node, tree.ColumnRef)}


def has(value: Any, *kinds: type) -> bool:
    """Whether a node of one of `kinds` is under `value`."""
    return any(isinstance(node, kinds) for node in nodes(value))


def is_volatile(value: Any) -> bool:
    """Whether evaluating twice, or not at all, could show."""
    return any(
        isinstance(node, tree.Call) and (node.volatile == "v" or node.retset)
        for node in nodes(value)
    )


def rewrite(expression: Any, change: Callable[[Any], Any]) -> Any:
    """`expression` with each node replaced by `change(node)`, outermost first.

    `change` returns None to leave a node and go on inside it. Subqueries' own trees are not entered.
    """
    changed = change(expression)
    if changed is not None:
        return changed
    updates = {}
    kind: Any = type(expression)
    for name in _names(kind):
        if name == "query" and isinstance(expression, tree.Subquery):
            continue
        value = getattr(expression, name)
        new = _rewrite_value(value, change)
        if new is not value:
            updates[name] = new
    return replace(expression, **updates) if updates else expression


def _rewrite_value(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, EXPRESSIONS):
        return rewrite(value, change)
    if isinstance(value, tuple) and value:
        items = tuple(_rewrite_value(item, change) for item in value)
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def conjuncts(condition: Expression | None) -> list[Expression]:
    """The parts of an AND; none for no condition."""
    if condition is None:
        return []
    if isinstance(condition, tree.BoolOp) and condition.op == "and":
        return [part for arg in condition.args for part in conjuncts(arg)]
    return [condition]


def conjunction(parts: list[Expression]) -> Expression | None:
    """The AND of parts; None for none."""
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else tree.BoolOp("and", tuple(parts))


def columns_of(relation: Any) -> tuple[ColumnId, ...]:
    """The columns that a relation yields, in the order of its rows."""
    match relation:
        case tree.Values(columns=ids) | tree.SetOperation(columns=ids):
            return ids
        case tree.FunctionScan(columns=groups, ordinality=ordinality):
            found = tuple(column for group in groups for column in group)
            return found if ordinality is None else (*found, ordinality)
        case tree.Project(outputs=outputs) | tree.ProjectSet(outputs=outputs):
            return tuple(column for column, _ in outputs)
        case tree.Aggregate(keys=keys, calls=calls, grouping=grouping):
            return tuple(column for column, _ in (*keys, *calls, *grouping))
        case tree.Window(input=inner, calls=calls):
            return columns_of(inner) + tuple(column for column, _ in calls)
        case tree.With(body=body):
            return columns_of(body)
    return _columns_by_shape(relation)


def _columns_by_shape(relation: Any) -> tuple[ColumnId, ...]:
    """Joins, scans and pass-through nodes, the planner's own among them, by the fields that they share."""
    if hasattr(relation, "left"):
        if relation.kind in ("semi", "anti"):
            return columns_of(relation.left)
        return columns_of(relation.left) + columns_of(
            getattr(relation, "right", None) or relation.inner
        )
    if hasattr(relation, "columns"):
        return tuple(column for column, _ in relation.columns)
    added = tuple(column for column, _, _ in getattr(relation, "subqueries", ()))
    return columns_of(relation.input) + added


def inputs(relation: Relation) -> tuple[Any, ...]:
    """The relations right below."""
    match relation:
        case tree.Join(left=left, right=right) | tree.SetOperation(left=left, right=right):
            return (left, right)
        case tree.With(body=body):
            return (body,)
    inner = getattr(relation, "input", None)
    return () if inner is None else (inner,)
