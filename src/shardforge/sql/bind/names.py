"""What an output column is called when it has no alias.

Source: PostgreSQL 15, src/backend/parser/parse_target.c (FigureColname).
"""

from __future__ import annotations

from shardforge.sql.bind.scope import Node

_UNNAMED = "?column?"

_VALUE_NAMES = {
    "SVFOP_CURRENT_DATE": "current_date",
    "SVFOP_CURRENT_TIME": "current_time",
    "SVFOP_CURRENT_TIME_N": "current_time",
    "SVFOP_CURRENT_TIMESTAMP": "current_timestamp",
    "SVFOP_CURRENT_TIMESTAMP_N": "current_timestamp",
    "SVFOP_LOCALTIME": "localtime",
    "SVFOP_LOCALTIME_N": "localtime",
    "SVFOP_LOCALTIMESTAMP": "localtimestamp",
    "SVFOP_LOCALTIMESTAMP_N": "localtimestamp",
    "SVFOP_CURRENT_ROLE": "current_role",
    "SVFOP_CURRENT_USER": "current_user",
    "SVFOP_USER": "user",
    "SVFOP_SESSION_USER": "session_user",
    "SVFOP_CURRENT_CATALOG": "current_catalog",
    "SVFOP_CURRENT_SCHEMA": "current_schema",
}


def column_name(node: Node) -> str:
    """The name of an output column without an alias."""
    name, _ = _figure(node)
    return name or _UNNAMED


def _last_name(items: list[Node]) -> str | None:
    for item in reversed(items):
        if "String" in item:
            name: str = item["String"].get("sval", "")
            return name
    return None


def _figure(node: Node) -> tuple[str | None, int]:
    """(name, how sure: 2 a proper name, 1 a type's name, 0 none)"""
    for kind, inner in node.items():
        if kind == "ColumnRef":
            found = _last_name(inner["fields"])
            return (found, 2) if found is not None else (None, 0)
        if kind == "A_Indirection":
            found = _last_name(inner["indirection"])
            return (found, 2) if found is not None else _figure(inner["arg"])
        if kind == "FuncCall":
            return _last_name(inner["funcname"]), 2
        if kind == "A_Expr":
            return ("nullif", 2) if inner.get("kind") == "AEXPR_NULLIF" else (None, 0)
        if kind == "TypeCast":
            found, strength = _figure(inner["arg"])
            return (
                (found, strength) if strength > 1 else (_last_name(inner["typeName"]["names"]), 1)
            )
        if kind == "CollateClause":
            return _figure(inner["arg"])
        if kind == "SubLink":
            return _figure_subquery(inner)
        if kind == "CaseExpr":
            found, strength = _figure(inner["defresult"]) if "defresult" in inner else (None, 0)
            return (found, strength) if strength > 1 else ("case", 1)
        if kind == "MinMaxExpr":
            return ("least" if inner.get("op") == "IS_LEAST" else "greatest"), 2
        if kind == "SQLValueFunction":
            return _VALUE_NAMES[inner.get("op", "SVFOP_CURRENT_DATE")], 2
        fixed = {
            "GroupingFunc": "grouping",
            "A_ArrayExpr": "array",
            "RowExpr": "row",
            "CoalesceExpr": "coalesce",
        }.get(kind)
        return (fixed, 2) if fixed is not None else (None, 0)
    return None, 0


def _figure_subquery(node: Node) -> tuple[str | None, int]:
    kind = node.get("subLinkType")
    if kind == "EXISTS_SUBLINK":
        return "exists", 2
    if kind == "ARRAY_SUBLINK":
        return "array", 2
    if kind != "EXPR_SUBLINK":
        return None, 0
    select = node["subselect"].get("SelectStmt", {})
    while "larg" in select:
        select = select["larg"]
    if "valuesLists" in select:
        return "column1", 2
    targets = select.get("targetList", [])
    if not targets:
        return None, 0
    first = targets[0]["ResTarget"]
    return first.get("name") or column_name(first["val"]), 2
