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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shardforge.errors import DatabaseError
from shardforge.sql.bind import BindEnvironment, bind_statement, tree, walk
from shardforge.sql.bind.casts import depends_on_now
from shardforge.sql.parse import Node, Statement, Value, kinds, lift, literals
from shardforge.sql.parse.constants import INT4, INT8, NUMERIC, STRING
from shardforge.sql.session.literal_nodes import LiteralNodes
from shardforge.sql.session.same_meaning import differences
from shardforge.sql.session.statements import Prepared, is_planned, planned
from shardforge.sql.types import oids
from shardforge.sql.types.registry import input_function

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
_VARIANTS_MAX: Final = 64
"""Plans kept of one template."""
_ROUNDS_MAX: Final = 5
"""Attempts at finding out which literals have to stay in the text."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a literal's value becomes its parameter's: `type` 0: it is a number already."""

    index: int
    type: int
    negative: bool

    def apply(self, value: Any, settings: Any) -> Any:
        """The parameter's value. Raises DatabaseError when the text is none of the type."""
        if self.type == 0:
            return -value
        text = f"-{value}" if self.negative else value
        return input_function(self.type, settings)(text)


@dataclass(frozen=True, slots=True)
class LiftedPlan:
    """A statement of a template, planned with parameters."""

    prepared: Prepared
    conversions: tuple[Conversion, ...]

    def with_values(self, text: str, values: tuple[Value, ...], settings: Any) -> Prepared | None:
        """The statement of the same template with these literals; None when they have to be bound to be judged."""
        constants: tuple[Any, ...] = values
        if self.conversions:
            made: list[Any] = list(values)
            try:
                for conversion in self.conversions:
                    value = made[conversion.index]
                    if depends_on_now(conversion.type, value):
                        return None
                    made[conversion.index] = conversion.apply(value, settings)
            except DatabaseError:
                return None
            constants = tuple(made)
        base = self.prepared
        return Prepared(
            Statement(base.statement.node, text), base.kind, (), base.columns, base.executable,
            base.catalog_version, base.binding, (), False, base.locks, constants,
        )  # fmt: skip


@dataclass(slots=True)
class Form:
    """What is known of a template: the literals that stay in the text (None: all), and plans by their values."""

    kept: tuple[int, ...] | None = None
    plans: dict[tuple[Value, ...], LiftedPlan] = field(default_factory=dict)

    def key(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Which plan values need."""
        return tuple([values[index] for index in self.kept or ()])

    def add(self, other: Form) -> None:
        """Take over the plans of another form of the same template."""
        if len(self.plans) >= _VARIANTS_MAX:
            self.plans.clear()
        self.plans.update(other.plans)


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
            conversions = self._conversions(environment, negative)
            if not wrong:
                found = differences(exact, bound, self._parameters(conversions))
                if found is None:
                    return None
                wrong = found
            if not wrong:
                form.kept = tuple(sorted(kept))
                return self._plan(bound, environment, conversions)
            kept |= wrong
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
        self, bound: tree.BoundStatement, environment: BindEnvironment, conversions: tuple[Conversion, ...]
    ) -> LiftedPlan | None:  # fmt: skip
        if walk.is_volatile(bound) and walk.has(bound, *_MATCHING):
            return None
        without_tree: Node = {next(iter(self.statement.node)): {}}
        statement = Statement(without_tree, "")
        return LiftedPlan(planned(statement, bound, environment), conversions)


_MATCHING = (tree.Sort, tree.Aggregate, tree.Distinct, tree.Window)
"""Nodes whose binding takes equal expressions for one; that shows when they are volatile."""


class _DependsOnNowError(Exception):
    """A literal such as 'today' is no constant, unlike others at the same place."""
