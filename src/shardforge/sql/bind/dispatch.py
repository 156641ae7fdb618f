"""From a parser's node to the function that binds it.

Each module of the package registers what it binds; `bind` is how they call one another without importing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import Expression

Handler: TypeAlias = Callable[[Scope, Node], Expression]
_handlers: dict[str, Handler] = {}


def binds(*names: str) -> Callable[[Handler], Handler]:
    """Register the decorated function for nodes of these names."""

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name not in _handlers, f"{name} is bound twice"
            _handlers[name] = handler
        return handler

    return register


def bind(scope: Scope, node: Node) -> Expression:
    """The bound form of an expression node `{"A_Expr": {...}}`."""
    for name, inner in node.items():
        handler = _handlers.get(name)
        if handler is None:
            raise unsupported(
                f"{_SHOWN.get(name, name)}", position=scope.shared.position(inner.get("location"))
            )
        return handler(scope, inner)
    raise QueryError("an expression is missing", "42601")


def bind_in(scope: Scope, node: Node, clause: str) -> Expression:
    """`node` as part of a clause; the clause decides whether aggregates and the like may stand there."""
    before, scope.clause = scope.clause, clause
    try:
        return bind(scope, node)
    finally:
        scope.clause = before


_SHOWN = {
    "XmlExpr": "XML",
    "XmlSerialize": "XML",
    "JsonFuncExpr": "SQL/JSON",
    "JsonObjectConstructor": "SQL/JSON",
    "JsonArrayConstructor": "SQL/JSON",
    "JsonIsPredicate": "SQL/JSON",
    "CurrentOfExpr": "WHERE CURRENT OF",
    "MergeSupportFunc": "MERGE",
}


def location_of(node: Node) -> int | None:
    """Where an expression starts, as PostgreSQL reports it (exprLocation: the leftmost part)."""
    for name, inner in node.items():
        own = inner.get("location", 0) if name not in _WITHOUT_LOCATION else None
        if own == -1:
            own = None
        if name == "A_Expr":
            left = inner.get("lexpr")
            candidates = [own, location_of(left) if left and "List" not in left else None]
        elif name == "TypeCast" and "A_Const" in inner["arg"]:
            return location_of(inner["arg"])
        elif name == "TypeCast":
            type_location = inner.get("typeName", {}).get("location")
            candidates = [own, type_location, location_of(inner["arg"])]
        elif name in ("CollateClause", "NullTest", "BooleanTest", "A_Indirection"):
            candidates = [own, location_of(inner["arg"])]
        elif name == "BoolExpr":
            candidates = [own, location_of(inner["args"][0])]
        else:
            return own
        known = [c for c in candidates if c is not None and c >= 0]
        return min(known) if known else None
    return None


_WITHOUT_LOCATION = frozenset({"A_Indirection", "List"})
