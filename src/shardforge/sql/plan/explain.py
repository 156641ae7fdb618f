"""EXPLAIN: a plan as PostgreSQL prints one, with our own names where the node is our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from shardforge.sql.bind import tree
from shardforge.sql.bind.tree import ColumnId
from shardforge.sql.plan import nodes
from shardforge.sql.plan.explain_expressions import Namer

Annotation = Callable[[nodes.Node], str]
_JOIN_WORDS = {"inner": "", "left": " Left", "full": " Full", "semi": " Semi", "anti": " Anti"}


def explain_lines(root: nodes.Node, annotation: Annotation | None = None) -> list[str]:
    """The lines of EXPLAIN."""
    return list(_Explainer(root, annotation).lines(root, 0, ""))


class _Explainer:
    def __init__(self, root: nodes.Node, annotation: Annotation | None) -> None:
        self._annotation = annotation
        self._names: dict[ColumnId, str] = {}
        self._collect(root)
        self._text = Namer(self._names)

    def _collect(self, node: nodes.Node) -> None:
        """Names of columns: table.column where they are read."""
        for child in nodes.children(node):
            self._collect(child)
        if isinstance(node, nodes.TableScan):
            named = {c.id: c.name for c in node.table.columns}
            for column, attnum in zip(node.columns, node.attnums, strict=True):
                self._names[column] = f"{node.alias or node.table.name}.{named.get(attnum, 'ctid')}"
        elif isinstance(node, nodes.VirtualTableScan):
            for column, position in zip(node.columns, node.positions, strict=True):
                name = node.table.columns[position].name if position >= 0 else "tableoid"
                self._names[column] = f"{node.alias or node.relation}.{name}"

    # ---- nodes -----------------------------------------------------------------------------------

    def lines(self, node: nodes.Node, depth: int, label: str) -> Iterator[str]:
        """A node, its details, and the nodes below it."""
        if isinstance(node, nodes.Project):  # PostgreSQL computes outputs in the node below
            yield from self.lines(node.input, depth, label)
            return
        if isinstance(node, nodes.With):
            yield from self._with(node, depth, label)
            return
        indent = "" if depth == 0 else "      " * (depth - 1) + "  "
        arrow = "->  " if depth else ""
        annotation = "" if self._annotation is None else self._annotation(node)
        if label:
            yield f"{'      ' * (depth - 1) + '  '}{label}"
            depth += 1
            indent = "      " * (depth - 1) + "  "
        yield f"{indent}{arrow}{self._title(node)}  (rows={round(node.rows)}){annotation}"
        margin = "      " * depth + "  "
        for detail in self._details(node):
            yield margin + detail
        for number, child in enumerate(nodes.children(node)):
            inner_label = ""
            if isinstance(node, nodes.Apply) and number == 1:
                inner_label = "SubPlan" if node.outer else "InitPlan"
            yield from self.lines(child, depth + 1, inner_label)

    def _with(self, node: nodes.With, depth: int, label: str) -> Iterator[str]:
        yield from self.lines(node.body, depth, label)
        for cte in node.ctes:
            yield from self.lines(cte.plan, depth + 1, f"CTE {cte.label}")
            if cte.step is not None:
                yield from self.lines(cte.step, depth + 2, "Recursive step")

    def _title(self, node: nodes.Node) -> str:
        match node:
            case nodes.TableScan():
                return self._scan_title(node)
            case nodes.VirtualTableScan(relation=relation, alias=alias):
                return f"Catalog Scan on {_aliased(relation.split('.')[-1], alias)}"
            case nodes.CteScan(label=label):
                return f"CTE Scan on {label}"
            case nodes.ValuesScan(lists=lists):
                return "Result" if len(lists) == 1 else "Values Scan"
            case nodes.FunctionScan():
                return "Function Scan"
            case nodes.HashJoin(kind=kind):
                return f"Hash{_JOIN_WORDS[kind]} Join"
            case nodes.NestedLoop(kind=kind):
                word = _JOIN_WORDS[kind]
                return f"Nested Loop{word}{' Join' if word else ''}"
            case nodes.IndexJoin(kind=kind):
                word = _JOIN_WORDS[kind]
                return f"Index{word} Join"
            case nodes.Aggregate(keys=keys):
                return "HashAggregate" if keys else "Aggregate"
            case nodes.Window():
                return "WindowAgg"
            case nodes.Sort(top=top):
                return "Sort" if top is None else "Top-N Sort"
            case nodes.Distinct():
                return "Unique"
            case nodes.SetOperation(op=op, all=keep_all):
                return f"SetOp {op.capitalize()}{' All' if keep_all else ''}"
            case (
                nodes.Insert(change=change)
                | nodes.Update(change=change)
                | nodes.Delete(change=change)
            ):
                return f"{type(node).__name__} on {change.table.name}"
        return type(node).__name__

    @staticmethod
    def _scan_title(node: nodes.TableScan) -> str:
        name = _aliased(node.table.name, node.alias)
        access = node.access
        if access.whole and access.index.primary and not access.merged and not access.reverse:
            return f"Seq Scan on {name}"
        backward = " Backward" if access.reverse else ""
        if access.index.primary and not access.index.name:
            return f"Key Scan{backward} on {name}"
        word = "Index Get" if access.point else "Index Scan"
        return f"{word}{backward} using {access.index.name} on {name}"

    # ---- details ---------------------------------------------------------------------------------

    def _details(self, node: nodes.Node) -> Iterator[str]:
        text = self._text
        match node:
            case nodes.TableScan(access=access, condition=condition):
                if access.conditions:
                    yield f"Index Cond: {text.conjunction(access.conditions)}"
                if access.spans > 1:
                    merged = ", merged in order" if access.merged else ""
                    yield f"Buckets: {access.spans} seeks{merged}"
                if condition is not None:
                    yield f"Filter: {text.of(condition)}"
            case nodes.Filter(condition=condition):
                yield f"Filter: {text.of(condition)}"
            case nodes.HashJoin():
                pairs = zip(node.left_keys, node.right_keys, strict=True)
                shown = [f"({text.of(a)} = {text.of(b)})" for a, b in pairs]
                yield "Hash Cond: " + (shown[0] if len(shown) == 1 else f"({' AND '.join(shown)})")
                if node.condition is not None:
                    yield f"Join Filter: {text.of(node.condition)}"
            case nodes.NestedLoop(condition=condition) | nodes.IndexJoin(condition=condition):
                if condition is not None:
                    yield f"Join Filter: {text.of(condition)}"
            case nodes.Sort(keys=keys):
                yield f"Sort Key: {self._sort_keys(keys)}"
            case nodes.Aggregate(keys=keys) if keys:
                yield f"Group Key: {', '.join(map(text.of, keys))}"

    def _sort_keys(self, keys: Sequence[tree.SortKey]) -> str:
        parts = []
        for key in keys:
            part = self._text.of(key.expression)
            if key.descending:
                part += " DESC"
            if key.nulls_first != key.descending:
                part += " NULLS FIRST" if key.nulls_first else " NULLS LAST"
            parts.append(part)
        return ", ".join(parts)


def _aliased(name: str, alias: str) -> str:
    return name if alias in ("", name) else f"{name} {alias}"
