"""Operators and the constructs made of them: comparison of rows, IN, BETWEEN, ANY/ALL over arrays, AND/OR/NOT, IS ...

Source: PostgreSQL 15, src/backend/parser/parse_oper.c (make_op, make_scalar_array_op), parse_expr.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardforge.errors import QueryError
from shardforge.sql import pgdata
from shardforge.sql.bind import polymorphic
from shardforge.sql.bind.arrays import bind_row_items
from shardforge.sql.bind.casts import (
    IMPLICIT,
    coerce_boolean,
    coerce_to_common,
    coerce_type,
    require_implementation,
    returns_set,
    type_name,
)
from shardforge.sql.bind.dispatch import bind, binds, location_of
from shardforge.sql.bind.pathways import (
    array_type_of,
    can_coerce,
    common_type,
    element_of,
    is_composite,
)
from shardforge.sql.bind.resolution import MISSING, Ambiguous, Missing, resolve_operator
from shardforge.sql.bind.scope import Node, Scope
from shardforge.sql.bind.tree import (
    ArrayExpr,
    BooleanTest,
    BoolOp,
    Call,
    ColumnRef,
    Const,
    DistinctTest,
    Expression,
    NullIf,
    NullTest,
    RowCompare,
    ScalarArrayOp,
)
from shardforge.sql.bind.typenames import strings
from shardforge.sql.bind.walk import nodes
from shardforge.sql.types import oids

# ---------------------------------------------------------------- one operator


def find_operator(
    scope: Scope, names: Sequence[str], left: int | None, right: int, location: int | None
) -> pgdata.OperatorRow:
    """The operator for operands of these types. Raises 42883 or 42725."""
    found: pgdata.OperatorRow | Ambiguous | Missing = MISSING
    if len(names) == 1 or names[0] == "pg_catalog":
        found = resolve_operator(names[-1], left, right)
    elif scope.shared.catalog.schema_by_name(names[0]) is None:
        raise scope.shared.error(f'schema "{names[0]}" does not exist', "3F000", location)
    if isinstance(found, pgdata.OperatorRow):
        return found
    shown = f"{'.'.join(names)} {type_name(scope, right)}"
    if left is not None:
        shown = f"{type_name(scope, left)} {shown}"
    plural = left is not None
    if isinstance(found, Ambiguous):
        raise scope.shared.error(
            f"operator is not unique: {shown}", "42725", location,
            hint="Could not choose a best candidate operator. You might need to add explicit type casts.",
        )  # fmt: skip
    hint = (
        "No operator matches the given name and argument types. You might need to add explicit type casts."
        if plural
        else "No operator matches the given name and argument type. You might need to add an explicit type cast."
    )
    raise scope.shared.error(f"operator does not exist: {shown}", "42883", location, hint=hint)


def make_operator(
    scope: Scope,
    names: Sequence[str],
    left: Expression | None,
    right: Expression,
    location: int | None,
) -> Call:
    """left op right, or op right."""
    row = find_operator(scope, names, None if left is None else left.type, right.type, location)
    return _apply(scope, row, left, right, location)


def _apply(
    scope: Scope,
    row: pgdata.OperatorRow,
    left: Expression | None,
    right: Expression,
    location: int | None,
) -> Call:
    proc = pgdata.proc_by_oid(row.oprcode)
    if proc is None:
        raise scope.shared.unsupported(f"operator {row.oprname}", location)
    require_implementation(scope.shared, proc, location)
    if left is None:
        args: tuple[Expression, ...] = (right,)
        declared: tuple[int, ...] = (row.oprright,)
    else:
        args = (left, right)
        declared = (row.oprleft, row.oprright)
    types = tuple(a.type for a in args)
    result = row.oprresult
    if types != declared:
        try:
            wanted, result = polymorphic.enforce(types, declared, result)
        except QueryError as error:
            error.position = error.position or scope.shared.position(location)
            raise
        args = tuple(
            arg if arg.type == target else coerce_type(scope, arg, target, -1, IMPLICIT, location)
            for arg, target in zip(args, wanted, strict=True)
        )
    elif result in polymorphic.TYPES:
        result = polymorphic.enforce(types, declared, result)[1]
    if proc.proretset:
        raise scope.shared.unsupported("a set-returning operator", location)
    return Call(proc.oid, args, result, -1, False, proc.provolatile, proc.proisstrict, proc.proname)


def make_equality(
    scope: Scope, left: Expression, right: Expression, location: int | None
) -> tuple[int, Expression, Expression]:
    """(function of =, left, right), both coerced to what it takes."""
    call = make_operator(scope, ("=",), left, right, location)
    if call.type != oids.BOOL:
        raise scope.shared.error(
            "IS DISTINCT FROM requires = operator to yield boolean", "42804", location
        )
    return call.proc, call.args[0], call.args[1]


# ---------------------------------------------------------------- A_Expr


@binds("A_Expr")
def _bind_a_expr(scope: Scope, node: Node) -> Expression:
    return _KINDS[node.get("kind", "AEXPR_OP")](scope, node)


def _row_items(node: Node | None) -> list[Node] | None:
    return None if node is None or "RowExpr" not in node else node["RowExpr"].get("args", [])


def _is_query(node: Node | None) -> bool:
    return node is not None and node.get("SubLink", {}).get("subLinkType") == "EXPR_SUBLINK"


def _plain(scope: Scope, node: Node) -> Expression:
    names = strings(node["name"])
    location = node.get("location", 0)
    left, right = node.get("lexpr"), node["rexpr"]
    left_items = _row_items(left)
    if left_items is not None:
        right_items = _row_items(right)
        if right_items is not None:
            return compare_rows(
                scope,
                names,
                bind_row_items(scope, left_items),
                bind_row_items(scope, right_items),
                location,
            )
        if _is_query(right):
            from shardforge.sql.bind.subqueries import compare_with_row

            return compare_with_row(scope, names, left_items, right["SubLink"], location)
    if left is None:
        return make_operator(scope, names, None, bind(scope, right), location)
    bound_left = bind(scope, left)
    return make_operator(scope, names, bound_left, bind(scope, right), location)


def compare_rows(
    scope: Scope,
    names: Sequence[str],
    left: Sequence[Expression],
    right: Sequence[Expression],
    location: int | None,
) -> Expression:
    """(a, b) op (c, d), column by column."""
    if len(left) != len(right):
        raise scope.shared.error("unequal number of entries in row expressions", "42601", location)
    if not left:
        raise scope.shared.error("cannot compare rows of zero length", "0A000", location)
    name = names[-1]
    if name not in ("=", "<>", "<", "<=", ">", ">="):
        raise scope.shared.error(
            f"could not determine interpretation of row comparison operator {name}", "0A000", location,
            hint="Row comparison operators must be associated with btree operator families.",
        )  # fmt: skip
    calls = [make_operator(scope, names, a, b, location) for a, b in zip(left, right, strict=True)]
    for call in calls:
        if call.type != oids.BOOL:
            raise scope.shared.error(
                "row comparison operator must yield type boolean, not type "
                + type_name(scope, call.type),
                "42804",
                location,
            )
    if len(calls) == 1:
        return calls[0]
    if name in ("=", "<>"):
        return BoolOp("and" if name == "=" else "or", tuple(calls))
    procs = []
    for call in calls:
        types = call.args[0].type, call.args[1].type
        less = find_operator(scope, ("<",), *types, location).oprcode
        equal = find_operator(scope, ("=",), *types, location).oprcode
        procs.append((less, equal))
    return RowCompare(
        name,
        tuple(call.args[0] for call in calls),
        tuple(call.args[1] for call in calls),
        tuple(procs),
    )


# ---------------------------------------------------------------- ANY, ALL, IN


def make_array_operator(
    scope: Scope,
    names: Sequence[str],
    left: Expression,
    array: Expression,
    use_or: bool,
    location: int | None,
) -> Expression:
    """left op ANY|ALL (array)"""
    word = "ANY" if use_or else "ALL"
    if array.type == oids.UNKNOWN:
        element = oids.UNKNOWN
    else:
        element = element_of(array.type)
        if not element:
            raise scope.shared.error(
                "op ANY/ALL (array) requires array on right side", "42809", location
            )
    row = find_operator(scope, names, left.type, element, location)
    declared = (row.oprleft, row.oprright)
    wanted, result = polymorphic.enforce((left.type, element), declared, row.oprresult)
    if result != oids.BOOL:
        raise scope.shared.error(
            "op ANY/ALL (array) requires operator to yield boolean", "42809", location
        )
    proc = pgdata.proc_by_oid(row.oprcode)
    if proc is None or proc.proretset:
        raise scope.shared.unsupported(f"{row.oprname} {word}", location)
    require_implementation(scope.shared, proc, location)
    array_type = array_type_of(wanted[1])
    if not array_type:
        raise scope.shared.error(
            f"could not find array type for data type {type_name(scope, wanted[1])}",
            "42704",
            location,
        )
    return ScalarArrayOp(
        proc.oid,
        coerce_type(scope, left, wanted[0], -1, IMPLICIT, location),
        coerce_type(scope, array, array_type, -1, IMPLICIT, location),
        use_or,
    )


def _any_or_all(use_or: bool) -> Callable[[Scope, Node], Expression]:
    def bind_it(scope: Scope, node: Node) -> Expression:
        left = bind(scope, node["lexpr"])
        right = bind(scope, node["rexpr"])
        location = node.get("location", 0)
        return make_array_operator(scope, strings(node["name"]), left, right, use_or, location)

    return bind_it


def _has_column(expression: Expression) -> bool:
    return any(isinstance(node, ColumnRef) for node in nodes(expression))


def _in_list(scope: Scope, node: Node) -> Expression:
    names = strings(node["name"])
    location = node.get("location", 0)
    use_or = names[-1] != "<>"
    right = node["rexpr"]
    items: list[Node] = right["List"]["items"] if "List" in right else [right]
    left_items = _row_items(node["lexpr"])
    if left_items is not None:
        tests: list[Expression] = []
        for item in items:
            row = _row_items(item)
            if row is None:
                raise scope.shared.unsupported("a row compared with a value", location)
            tests.append(
                compare_rows(
                    scope,
                    names,
                    bind_row_items(scope, left_items),
                    bind_row_items(scope, row),
                    location,
                )
            )
        return _joined(tests, use_or)
    left = bind(scope, node["lexpr"])
    bound = [(bind(scope, item), location_of(item)) for item in items]
    constants = [(e, at) for e, at in bound if not _has_column(e)]
    others = [e for e, _ in bound if _has_column(e)]
    tests = []
    if len(constants) > 1:
        made = _in_array(scope, names, left, constants, use_or, location)
        if made is None:
            others = [e for e, _ in bound]
        else:
            tests.append(made)
    else:
        others = [e for e, _ in bound]
    tests += [make_operator(scope, names, left, e, location) for e in others]
    return _joined(tests, use_or)


def _joined(tests: list[Expression], use_or: bool) -> Expression:
    return tests[0] if len(tests) == 1 else BoolOp("or" if use_or else "and", tuple(tests))


def _in_array(
    scope: Scope,
    names: Sequence[str],
    left: Expression,
    items: list[tuple[Expression, int | None]],
    use_or: bool,
    location: int | None,
) -> Expression | None:
    """The list as one array, when its members and the left side have a common type."""
    common = common_type([left.type, *(e.type for e, _ in items)])
    if not isinstance(common, int) or common == oids.RECORD or is_composite(common):
        return None
    if not all(can_coerce(e.type, common) for e, _ in items):
        return None
    array_type = array_type_of(common)
    if not array_type:
        return None
    elements = tuple(coerce_to_common(scope, e, common, "IN", at) for e, at in items)
    array = ArrayExpr(elements, array_type)
    return make_array_operator(scope, names, left, array, use_or, location)


# ---------------------------------------------------------------- the other kinds


def _distinct(negated: bool) -> Callable[[Scope, Node], Expression]:
    def bind_it(scope: Scope, node: Node) -> Expression:
        location = node.get("location", 0)
        left_node, right_node = node["lexpr"], node["rexpr"]
        for tested, other in ((right_node, left_node), (left_node, right_node)):
            if tested.get("A_Const", {}).get("isnull"):
                return NullTest(bind(scope, other), negated=not negated)
        left_items, right_items = _row_items(left_node), _row_items(right_node)
        if left_items is not None and right_items is not None:
            left, right = bind_row_items(scope, left_items), bind_row_items(scope, right_items)
            if len(left) != len(right):
                raise scope.shared.error(
                    "unequal number of entries in row expressions", "42601", location
                )
            tests: list[Expression] = [
                DistinctTest(*make_equality(scope, a, b, location), negated=negated)
                for a, b in zip(left, right, strict=True)
            ]
            return _joined(tests, use_or=not negated)
        bound = bind(scope, left_node), bind(scope, right_node)
        return DistinctTest(*make_equality(scope, *bound, location), negated=negated)

    return bind_it


def _nullif(scope: Scope, node: Node) -> Expression:
    location = node.get("location", 0)
    left, right = bind(scope, node["lexpr"]), bind(scope, node["rexpr"])
    call = make_operator(scope, ("=",), left, right, location)
    if call.type != oids.BOOL:
        raise scope.shared.error("NULLIF requires = operator to yield boolean", "42804", location)
    coerced = call.args[0]
    if returns_set(left):
        raise scope.shared.error("NULLIF must not return a set", "42804", location)
    original = left if left.type != oids.UNKNOWN else coerced
    return NullIf(call.proc, coerced, call.args[1], original, original.type, original.typmod)


def _between(*, negated: bool, symmetric: bool) -> Callable[[Scope, Node], Expression]:
    def bind_it(scope: Scope, node: Node) -> Expression:
        location = node.get("location", 0)
        low, high = node["rexpr"]["List"]["items"]

        def within(a: Node, b: Node) -> Expression:
            value_low, value_high = bind(scope, node["lexpr"]), bind(scope, node["lexpr"])
            first, second, word = ("<", ">", "or") if negated else (">=", "<=", "and")
            return BoolOp(
                word,
                (
                    make_operator(scope, (first,), value_low, bind(scope, a), location),
                    make_operator(scope, (second,), value_high, bind(scope, b), location),
                ),
            )

        once = within(low, high)
        if not symmetric:
            return once
        return BoolOp("and" if negated else "or", (once, within(high, low)))

    return bind_it


def _like(scope: Scope, node: Node) -> Expression:
    left, right = bind(scope, node["lexpr"]), bind(scope, node["rexpr"])
    return make_operator(scope, strings(node["name"]), left, right, node.get("location", 0))


_KINDS: dict[str, Callable[[Scope, Node], Expression]] = {
    "AEXPR_OP": _plain,
    "AEXPR_OP_ANY": _any_or_all(True),
    "AEXPR_OP_ALL": _any_or_all(False),
    "AEXPR_DISTINCT": _distinct(False),
    "AEXPR_NOT_DISTINCT": _distinct(True),
    "AEXPR_NULLIF": _nullif,
    "AEXPR_IN": _in_list,
    "AEXPR_LIKE": _like,
    "AEXPR_ILIKE": _like,
    "AEXPR_SIMILAR": _like,
    "AEXPR_BETWEEN": _between(negated=False, symmetric=False),
    "AEXPR_NOT_BETWEEN": _between(negated=True, symmetric=False),
    "AEXPR_BETWEEN_SYM": _between(negated=False, symmetric=True),
    "AEXPR_NOT_BETWEEN_SYM": _between(negated=True, symmetric=True),
}


# ---------------------------------------------------------------- logic


@binds("BoolExpr")
def _bind_logic(scope: Scope, node: Node) -> Expression:
    word = {"AND_EXPR": "and", "OR_EXPR": "or", "NOT_EXPR": "not"}[node.get("boolop", "AND_EXPR")]
    args = tuple(
        coerce_boolean(scope, bind(scope, arg), word.upper(), location_of(arg))
        for arg in node["args"]
    )
    return BoolOp(word, args)


@binds("NullTest")
def _bind_null_test(scope: Scope, node: Node) -> Expression:
    argument = bind(scope, node["arg"])
    negated = node.get("nulltesttype") == "IS_NOT_NULL"
    row = argument.type == oids.RECORD or is_composite(argument.type)
    if argument.type == oids.UNKNOWN and isinstance(argument, Const):
        argument = Const(argument.value, oids.TEXT)
    return NullTest(argument, negated, row)


_BOOLEAN_TESTS = {
    "IS_TRUE": ("true", False),
    "IS_NOT_TRUE": ("true", True),
    "IS_FALSE": ("false", False),
    "IS_NOT_FALSE": ("false", True),
    "IS_UNKNOWN": ("unknown", False),
    "IS_NOT_UNKNOWN": ("unknown", True),
}


@binds("BooleanTest")
def _bind_boolean_test(scope: Scope, node: Node) -> Expression:
    test, negated = _BOOLEAN_TESTS[node.get("booltesttype", "IS_TRUE")]
    words = f"IS {'NOT ' if negated else ''}{test.upper()}"
    argument = coerce_boolean(scope, bind(scope, node["arg"]), words, location_of(node["arg"]))
    return BooleanTest(argument, test, negated)
