"""Plans of statement templates, and how a statement's own literals become their parameters.

template -> Form -> (values of the literals that stay in the text) -> LiftedPlan, run with the other values
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from shardforge.errors import DatabaseError
from shardforge.sql.bind.casts import depends_on_now
from shardforge.sql.execute.expressions import Function
from shardforge.sql.parse import Statement, Value
from shardforge.sql.session.prepared import Prepared
from shardforge.sql.types.registry import input_function

_VARIANTS_MAX: Final = 64
"""Plans kept of one template."""


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
    derived: tuple[Function, ...] = ()
    """Further parameters, made from those of the literals."""

    def with_values(self, text: str, values: tuple[Value, ...], settings: Any) -> Prepared | None:
        """The statement of the same template with these literals; None when they have to be bound to be judged."""
        constants: tuple[Any, ...] = values
        if self.conversions or self.derived:
            made: list[Any] = list(values)
            try:
                for conversion in self.conversions:
                    value = made[conversion.index]
                    if depends_on_now(conversion.type, value):
                        return None
                    made[conversion.index] = conversion.apply(value, settings)
                if self.derived:
                    given = _Given(made)
                    made += [function((), given) for function in self.derived]
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


class _Given:
    """What conversions of parameters are evaluated with."""

    __slots__ = ("params",)

    def __init__(self, params: list[Any]) -> None:
        self.params = params
