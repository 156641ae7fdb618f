"""A view's query with its names resolved: relations with their schemas, `*` written out.

Works on the parse tree: common table expressions hide relations of the same name from where they are visible.
"""

from __future__ import annotations

from typing import Any

from shardforge.errors import QueryError, unsupported
from shardforge.sql.bind import bind_statement, resolve_type_name, tree
from shardforge.sql.catalog.snapshot import TEMPORARY_PREFIX
from shardforge.sql.ddl import expressions
from shardforge.sql.ddl.context import Ddl, Node
from shardforge.sql.ddl.names import find

With = list[Node]


def resolve_query(ddl: Ddl, query: Node) -> tuple[Node, set[int]]:
    """(the query with names resolved, oids of the relations that it names)."""
    resolver = _Resolver(ddl)
    return resolver.visit(query, []), resolver.used


class _Resolver:
    def __init__(self, ddl: Ddl) -> None:
        self._ddl = ddl
        self.used: set[int] = set()

    def visit(self, node: Any, ctes: With) -> Any:
        if isinstance(node, list):
            return [self.visit(item, ctes) for item in node]
        if not isinstance(node, dict):
            return node
        if "SelectStmt" in node:
            return {"SelectStmt": self._select(node["SelectStmt"], ctes)}
        if "RangeVar" in node:
            return {"RangeVar": self._relation(node["RangeVar"], ctes)}
        return {
            key: self._type(value) if key == "typeName" else self.visit(value, ctes)
            for key, value in node.items()
        }

    def _type(self, name: Node) -> Node:
        """A type's name, with its schema when it is an enum."""
        enum = self._ddl.catalog.enum_by_id(
            resolve_type_name(name, expressions.environment(self._ddl, ""))[0]
        )
        if enum is None:
            return name
        schema = self._ddl.catalog.schema_by_id(enum.schema_id)
        assert schema is not None, "a type's schema exists while the type does"
        return {
            **name,
            "names": [
                {"String": {"sval": n}} for n in (schema.name, name["names"][-1]["String"]["sval"])
            ],
        }

    def _select(self, select: Node, ctes: With) -> Node:
        if select.get("intoClause"):
            raise QueryError("views must not contain SELECT INTO", "0A000")
        result = dict(select)
        if "withClause" in select:
            ctes = self._with(result, select["withClause"], ctes)
        for side in ("larg", "rarg"):
            if side in select:
                result[side] = self._select(select[side], ctes)
        for key, value in select.items():
            if key not in ("withClause", "larg", "rarg", "targetList"):
                result[key] = self.visit(value, ctes)
        if "targetList" in select:
            result["targetList"] = self._targets(result, select["targetList"], ctes)
        return result

    def _with(self, result: Node, clause: Node, ctes: With) -> With:
        recursive = bool(clause.get("recursive"))
        seen = list(ctes)
        if recursive:
            seen = seen + clause["ctes"]
        done = []
        for item in clause["ctes"]:
            expression = item["CommonTableExpr"]
            if "SelectStmt" not in expression["ctequery"]:
                raise QueryError(
                    "views must not contain data-modifying statements in WITH", "0A000"
                )
            query = self.visit(expression["ctequery"], seen)
            done.append({"CommonTableExpr": {**expression, "ctequery": query}})
            if not recursive:
                seen = [*seen, done[-1]]
        result["withClause"] = {**clause, "ctes": done}
        return [*ctes, *done]

    def _relation(self, relation: Node, ctes: With) -> Node:
        names = {item["CommonTableExpr"]["ctename"] for item in ctes}
        if "schemaname" not in relation and relation["relname"] in names:
            return relation
        found = find(self._ddl, relation)
        if found is None:
            return relation  # binding gives the error with its position
        self.used.add(found.id)
        schema, name = self._ddl.catalog.qualified_name(found)
        if schema.startswith(TEMPORARY_PREFIX):
            schema = "pg_temp"
        return {**relation, "schemaname": schema, "relname": name}

    def _targets(self, select: Node, targets: list[Node], ctes: With) -> list[Node]:
        done: list[Node] = []
        for target in targets:
            fields = target["ResTarget"].get("val", {}).get("ColumnRef", {}).get("fields", [])
            if fields and "A_Star" in fields[-1]:
                done.extend(self._star(select, fields, ctes))
            else:
                done.append(self.visit(target, ctes))
        return done

    def _star(self, select: Node, fields: list[Node], ctes: With) -> list[Node]:
        """The columns that `*` or `alias.*` stands for."""
        probe: Node = {
            "targetList": [{"ResTarget": {"val": {"ColumnRef": {"fields": fields}}}}],
            "fromClause": select.get("fromClause", []),
            "limitOption": "LIMIT_OPTION_DEFAULT",
            "op": "SETOP_NONE",
        }
        if ctes:
            recursive = any(True for _ in ctes)
            probe["withClause"] = {"ctes": ctes, "recursive": recursive}
        try:
            environment = expressions.environment(self._ddl, "")
            bound = bind_statement({"SelectStmt": probe}, environment)
        except QueryError as failure:
            if failure.sqlstate in ("42703", "42P01"):
                raise unsupported("SELECT * in this part of a view: name the columns") from failure
            raise
        assert isinstance(bound, tree.Query), "the probe is a SELECT"
        names = [output.name for output in bound.outputs]
        if len(fields) == 1 and len(set(names)) != len(names):
            raise QueryError(
                f'column "{next(n for n in names if names.count(n) > 1)}" specified more than once',
                "42701",
            )
        prefix = fields[:-1]
        return [
            {"ResTarget": {"val": {"ColumnRef": {"fields": [*prefix, {"String": {"sval": name}}]}}}}
            for name in names
        ]
