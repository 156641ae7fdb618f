"""What functions may know beyond their arguments: the moment, the settings, randomness, session and catalog.

One context serves one session; the session sets its times and catalog before each statement. `catalog` answers
for names and descriptions of objects, `session` for what is asked about the connection; both are reached by the
method names that the functions of `catalog_info` and `session_info` use.
"""

from __future__ import annotations

from random import Random
from typing import Any

from shardforge.ports import Clock
from shardforge.sql.functions.waiting import Steps
from shardforge.sql.types.base import TypeSettings

UNIX_EPOCH_TO_2000_US = 946_684_800_000_000


class EvalContext:
    """Evaluation context of one session. Times are microseconds since 2000-01-01 UTC."""

    __slots__ = (
        "catalog",
        "clock",
        "random",
        "session",
        "settings",
        "statement_us",
        "steps",
        "transaction_us",
    )

    def __init__(
        self,
        *,
        settings: TypeSettings,
        session: Any,
        clock: Clock,
        random: Random,
        catalog: Any = None,
        transaction_us: int = 0,
        statement_us: int = 0,
    ) -> None:
        self.settings = settings
        self.session = session
        self.random = random
        self.catalog = catalog
        self.transaction_us = transaction_us
        self.statement_us = statement_us
        self.clock = clock
        self.steps = Steps()

    def clock_us(self) -> int:
        """The moment now, which moves within a statement (clock_timestamp)."""
        return self.clock.wall_us() - UNIX_EPOCH_TO_2000_US
