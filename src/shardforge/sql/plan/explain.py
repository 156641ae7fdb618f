"""EXPLAIN: a plan as indented lines, PostgreSQL's node names where the node is the same. PURE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shardforge.sql.bind import tree
from shardforge.sql.bind.show import show_expression
from shardforge.sql.plan.physical import (
    Apply,
    HashJoin,
    KeyAccess,
    LookupJoin,
    NestedLoop,
    SpanAccess,
    TopN,
)

Annotate = Callable[[Any], str]
_NAMES = {
    tree.Values: "Values", tree.FunctionScan: "Function Scan", tree.CteScan: "CTE Scan", tree.VirtualScan: "Catalog Scan",
    tree.Filter: "Filter", tree.Project: "Project", tree.ProjectSet: "ProjectSet", tree.Window: "WindowAgg",
    tree.Distinct: "Unique", tree.Sort: "Sort", tree.Limit: "Limit", tree.LockRows: "LockRows", tree.With: "With",
    Apply: "SubPlan Apply", TopN: "Top-N Sort",
}  # fmt: skip
_JOIN_WORDS = {"inner": "", "left": " Left", "right": " Right", "full": " Full", "semi": " Semi", "anti": " Anti"}


def explain_lines(root: Any, annotate: Annotate | None = None) -> list[str]:
    """The plan below `root`; `annotate` adds to each node's line (row counts and times of a run)."""
    lines: list[str] = []
    _node(root, 0, lines, annotate or (lambda node: ""))
    return lines


def _title(node: Any) -> str:
    match node:
        case KeyAccess(table=table, alias=alias, index=index):
            return f"Key Lookup using {index.name} on {_relation(table.name, alias)}"
        case SpanAccess(table=table, alias=alias, index=index, equal=equal, lower=lower, upper=upper):
            if not equal and lower is None and upper is None and index.primary:
                return f"Seq Scan on {_relation(table.name, alias)}"
            return f"Index Scan using {index.name} on {_relation(table.name, alias)}"
        case tree.Scan(table=table, alias=alias):
            return f"Seq Scan on {_relation(table.name, alias)}"
        case HashJoin(kind=kind):
            return f"Hash{_JOIN_WORDS[kind]} Join"
        case LookupJoin(kind=kind):
            return f"Lookup{_JOIN_WORDS[kind]} Join"
        case NestedLoop(kind=kind) | tree.Join(kind=kind):
            return f"Nested Loop{_JOIN_WORDS.get(kind, '')}"
        case tree.Aggregate(keys=keys):
            return "HashAggregate" if keys else "Aggregate"
        case tree.SetOperation(op=op, all=every):
            return f"{op.capitalize()}{' All' if every else ''}"
        case tree.Insert(table=table) | tree.Update(table=table) | tree.Delete(table=table):
            return f"{type(node).__name__} on {table.name}"
    return _NAMES[type(node)]


def _relation(name: str, alias: str) -> str:
    return name if alias in ("", name) else f"{name} {alias}"


def _details(node: Any) -> list[str]:
    details: list[str] = []
    match node:
        case KeyAccess(keys=keys, any_of=any_of, filter=condition):
            shown = "; ".join(", ".join(show_expression(e) for e in key) for key in keys)
            details.append(f"Key: ({shown})" if any_of is None else f"Key: ({shown}) any of {show_expression(any_of)}")
            if condition is not None:
                details.append(f"Filter: {show_expression(condition)}")
        case SpanAccess(equal=equal, filter=condition):
            if equal:
                details.append(f"Index Cond: ({', '.join(show_expression(e) for e in equal)})")
            if condition is not None:
                details.append(f"Filter: {show_expression(condition)}")
            if node.table.sharding.kind == "hash" and not (equal and len(equal) == len(node.index.columns)):
                details.append("Buckets: 64")
        case HashJoin(left_keys=left, right_keys=right, condition=condition):
            pairs = (f"{show_expression(a)} = {show_expression(b)}" for a, b in zip(left, right, strict=True))
            details.append(f"Hash Cond: ({' AND '.join(pairs)})")
            if condition is not None:
                details.append(f"Join Filter: {show_expression(condition)}")
        case NestedLoop(condition=condition) if condition is not None:
            details.append(f"Join Filter: {show_expression(condition)}")
        case tree.Filter(condition=condition):
            details.append(f"Filter: {show_expression(condition)}")
        case tree.Sort(keys=keys) | TopN(keys=keys):
            details.append(f"Sort Key: {', '.join(_sort_key(k) for k in keys)}")
        case tree.Aggregate(keys=keys) if keys:
            details.append(f"Group Key: {', '.join(show_expression(e) for _, e in keys)}")
    return details


def _sort_key(key: tree.SortKey) -> str:
    return show_expression(key.expression) + (" DESC" if key.descending else "")


def _below(node: Any) -> list[Any]:
    if isinstance(node, LookupJoin):
        return [node.left, node.inner]
    if isinstance(node, Apply):
        return [node.input, *(physical for _, _, physical in node.subqueries)]
    if isinstance(node, tree.With):
        return [*(q for cte in node.ctes for q in (cte.recursive[:2] if cte.recursive else (cte.query,))), node.body]
    if isinstance(node, tree.Insert | tree.Update | tree.Delete):
        return [node.source]
    if hasattr(node, "left"):
        return [node.left, node.right]
    below = getattr(node, "input", None)
    return [] if below is None else [below]


def _node(node: Any, depth: int, lines: list[str], annotate: Annotate) -> None:
    if isinstance(node, tree.Project) and not annotate(node):
        _node(node.input, depth, lines, annotate)  # PostgreSQL shows no node for a projection either
        return
    indent = "  " * depth
    arrow = "->  " if depth else ""
    lines.append(f"{indent}{arrow}{_title(node)}{annotate(node)}")
    pad = indent + ("      " if depth else "  ")
    lines.extend(pad + detail for detail in _details(node))
    for below in _below(node):
        _node(below, depth + 1, lines, annotate)
