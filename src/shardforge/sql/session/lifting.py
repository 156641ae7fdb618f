"""Plans shared by statements that differ only in their literals.

    template -> Form -> (values of the literals that stay in the text) -> LiftedPlan, run with the other values

The first statement of a template is bound twice: as it is, and with its literals as parameters of the types that
PostgreSQL gives them (strings: none yet). The second tree is planned and kept only when putting the values in gives the
first; what cannot be a parameter (ordinals, type modifiers, LIMIT, names of sequences) is part of the key instead.
Binding a parameter never sees its value, so what the comparison proves for one value holds for all that the type's
input function takes; for any other value the statement is prepared from its own text, and that reports the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shardforge.errors import DatabaseError
from shardforge.sql.bind import BindEnvironment, bind_statement, tree, walk
from shardforge.sql.bind.casts import depends_on_now
from shardforge.sql.execute.expressions import compile_expression
from shardforge.sql.parse import Node, Statement, Value, kinds, lift, literals
from shardforge.sql.parse.constants import INT4, INT8, NUMERIC, STRING
from shardforge.sql.session.lifted import Conversion, Form, LiftedPlan
from shardforge.sql.session.literal_nodes import LiteralNodes
from shardforge.sql.session.prepared import Prepared
from shardforge.sql.session.same_meaning import compare, folded
from shardforge.sql.session.statements import is_planned, planned
from shardforge.sql.types import oids

if TYPE_CHECKING:
    from shardforge.sql.catalog.snapshot import CatalogSnapshot
    from shardforge.sql.session.instance import PlanCache, PlanKey
    from shardforge.sql.session.settings import Settings

_TYPES: Final[Mapping[str, int | None]] = {
    INT4: oids.INT4,
    INT8: oids.INT8,
    NUMERIC: oids.NUMERIC,
    STRING: None,
}
_ROUNDS_MAX: Final = 5
"""Attempts at finding out which literals have to stay in the text."""


def find(plans: PlanCache, text: str, where: PlanKey, settings: Any) -> Prepared | None:
    """The statement by the plan of its template, if there is one that its literals fit."""
    lifted = lift(text)
    if lifted is None:
        return None
    template, values = lifted
    form = plans.form((template, where))
    if form is None or form.kept is None:
        return None
    plan = form.plans.get(form.key(values))
    return None if plan is None else plan.with_values(text, values, settings)


def prepare(
    plans: PlanCache, statement: Statement, where: PlanKey,
    catalog: CatalogSnapshot, settings: Settings, search_path: tuple[str, ...],
) -> Prepared | None:  # fmt: skip
    """A planned statement with its literals lifted, and remembered so; None when they must stay in its text.

    Raises QueryError as binding the statement itself does.
    """
    lifted = lift(statement.text) if plans.size_max and is_planned(statement.node) else None
    if lifted is None:
        return None
    template, values = lifted
    known = plans.form((template, where))
    if known is not None and known.kept is None:
        return None
    attempt = Lifting(statement, template, values, catalog, settings, search_path)
    prepared, form = attempt.prepare()
    if form is not None:
        if known is not None and known.kept == form.kept:
            known.add(form)
        else:
            plans.put_form((template, where), form)
    return prepared


@dataclass(frozen=True, slots=True)
class Lifting:
    """One attempt at lifting the literals of a statement."""

    statement: Statement
    template: str
    values: tuple[Value, ...]
    catalog: CatalogSnapshot
    settings: Settings
    search_path: tuple[str, ...]

    def prepare(self) -> tuple[Prepared, Form | None]:
        """The statement, and what is now known of its template (None: nothing, for this value says nothing).

        Raises QueryError as binding the statement itself does.
        """
        environment = self._environment([], None)
        exact = bind_statement(self.statement.node, environment)
        form = Form()
        try:
            plan = self._general(exact, form)
        except RecursionError:
            plan = None
        except _DependsOnNowError:
            return planned(self.statement, exact, environment), None
        # The statement that shows the way runs by the plan of its successors.
        prepared = None
        if plan is not None:
            prepared = plan.with_values(self.statement.text, self.values, self.settings)
        if plan is None or prepared is None:
            form.kept = None
            return planned(self.statement, exact, environment), form
        form.plans[form.key(self.values)] = plan
        return prepared, form

    def _environment(self, types: list[int | None], kept: set[int] | None) -> BindEnvironment:
        return BindEnvironment(
            catalog=self.catalog, search_path=self.search_path, settings=self.settings,
            parameter_types=types, text=self.statement.text, kept_literals=kept,
        )  # fmt: skip

    def _general(self, exact: tree.BoundStatement, form: Form) -> LiftedPlan | None:
        """The plan for all values; says in `form` which literals it does not cover."""
        nodes = LiteralNodes(literals(self.statement.text), self.values)
        kept: set[int] = set()
        for _ in range(_ROUNDS_MAX):
            node, negative = nodes.lift(self.statement.node, kept)
            kept |= set(range(len(self.values))) - negative.keys()
            if len(kept) == len(self.values):
                return None
            environment = self._environment(self._declared(kept), set())
            try:
                bound = bind_statement(node, environment)
            except DatabaseError:
                return None
            wrong = environment.kept_literals or set()
            if wrong:
                kept |= wrong
                continue
            conversions = self._conversions(environment, negative)
            found = compare(exact, bound, self._parameters(conversions))
            if not found.equal:
                return None
            if not found.different:
                form.kept = tuple(sorted(kept))
                derived = tuple(found.conversions.values())
                return self._plan(bound, environment, conversions, derived)
            kept |= found.different
        return None

    def _declared(self, kept: set[int]) -> list[int | None]:
        declared = [_TYPES[kind] for kind in kinds(self.template)]
        return [
            oids.TEXT if index in kept and known is None else known
            for index, known in enumerate(declared)
        ]

    def _conversions(
        self, environment: BindEnvironment, negative: Mapping[int, bool]
    ) -> tuple[Conversion, ...]:
        found = []
        for index, minus in sorted(negative.items()):
            target = environment.parameter_types[index] or oids.TEXT
            value = self.values[index]
            if isinstance(value, str):
                if depends_on_now(target, value):
                    raise _DependsOnNowError
                found.append(Conversion(index, target, minus))
            elif minus:
                found.append(Conversion(index, 0, minus))
        return tuple(found)

    def _parameters(self, conversions: tuple[Conversion, ...]) -> list[Any]:
        made: list[Any] = list(self.values)
        for conversion in conversions:
            made[conversion.index] = conversion.apply(made[conversion.index], self.settings)
        return made

    def _plan(
        self, bound: tree.BoundStatement, environment: BindEnvironment,
        conversions: tuple[Conversion, ...], derived: tuple[tree.Expression, ...],
    ) -> LiftedPlan | None:  # fmt: skip
        if walk.is_volatile(bound) and walk.has(bound, *_MATCHING):
            return None
        without_tree: Node = {next(iter(self.statement.node)): {}}
        general = folded(bound, derived, len(self.values))
        try:
            prepared = planned(Statement(without_tree, ""), general, environment)
            functions = tuple([compile_expression(expression, {}) for expression in derived])
        except DatabaseError:
            return None
        return LiftedPlan(prepared, conversions, functions)


_MATCHING = (tree.Sort, tree.Aggregate, tree.Distinct, tree.Window)
"""Nodes whose binding takes equal expressions for one; that shows when they are volatile."""


class _DependsOnNowError(Exception):
    """A literal such as 'today' is no constant, unlike others at the same place."""
