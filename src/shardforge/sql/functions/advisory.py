"""Advisory locks as functions: taken or tried, shared or not, for the session or for its transaction.

`context.session.advisory` holds them. A row that has to wait is evaluated again, but takes and gives back each lock
once. Source: PostgreSQL 15, chapter 9.27.10 and src/backend/utils/adt/lockfuncs.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shardforge.sql.functions.context import EvalContext
from shardforge.sql.functions.registry import implements
from shardforge.sql.functions.waiting import MustWaitError

_MASK: Final = 0xFFFF_FFFF


def _number(parts: tuple[int, ...]) -> tuple[int, int, int]:
    """classid, objid and objsubid of one bigint, or of two integers: two spaces that do not meet."""
    if len(parts) == 1:
        return parts[0] >> 32 & _MASK, parts[0] & _MASK, 1
    return parts[0] & _MASK, parts[1] & _MASK, 2


def _take(
    context: EvalContext, number: tuple[int, int, int], *, shared: bool, transactional: bool
) -> bool:
    """Try to take a lock, once this node is known to be the one that grants them."""
    coordinator = context.session.instance.store.coordinator
    if not coordinator.serves():
        raise MustWaitError(coordinator.wait_serving)
    return bool(
        context.session.advisory.try_acquire(number, shared=shared, transactional=transactional)
    )


def _lock(*, shared: bool, transactional: bool) -> Callable[..., str]:
    def lock(context: EvalContext, *parts: int) -> str:
        number = _number(parts)

        async def wait() -> None:
            locks = context.session.advisory
            await locks.acquire(number, shared=shared, transactional=transactional)
            context.steps.done("")

        def take() -> str:
            if not _take(context, number, shared=shared, transactional=transactional):
                raise MustWaitError(wait)
            return ""

        return context.steps.once(take)

    return lock


def _try_lock(*, shared: bool, transactional: bool) -> Callable[..., bool]:
    def try_lock(context: EvalContext, *parts: int) -> bool:
        number = _number(parts)
        return context.steps.once(
            lambda: _take(context, number, shared=shared, transactional=transactional)
        )

    return try_lock


def _unlock(*, shared: bool) -> Callable[..., bool]:
    def unlock(context: EvalContext, *parts: int) -> bool:
        locks, number = context.session.advisory, _number(parts)
        return context.steps.once(lambda: bool(locks.release(number, shared=shared)))

    return unlock


def _register(name: str, function: Callable[..., object]) -> None:
    """For one bigint and for two integers."""
    implements(f"{name}_int8", f"{name}_int4", context=True)(function)


for _shared, _mode in ((False, ""), (True, "_shared")):
    for _transactional, _level in ((False, ""), (True, "xact_")):
        _register(
            f"pg_advisory_{_level}lock{_mode}",
            _lock(shared=_shared, transactional=_transactional),
        )
        _register(
            f"pg_try_advisory_{_level}lock{_mode}",
            _try_lock(shared=_shared, transactional=_transactional),
        )
    _register(f"pg_advisory_unlock{_mode}", _unlock(shared=_shared))


@implements("pg_advisory_unlock_all", context=True)
def pg_advisory_unlock_all(context: EvalContext) -> str:
    """Give back all locks of the session."""
    context.steps.once(context.session.advisory.release_all)
    return ""
