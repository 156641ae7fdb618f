"""A session's settings: current values, SET and SET LOCAL, and their undoing when a transaction ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shardforge.errors import QueryError
from shardforge.sql.session.parameters import PARAMETERS, milliseconds, normalized, parameter

RESERVED_PREFIX = "shardforge."
COMMIT_KEY = "shardforge.commit_key"
LEVEL = "shardforge.consistency_level"


class Settings:
    """Values by lower-case name; the hot ones are attributes, kept in step.

    `binding` names the values that binding depends on, for the keys of cached plans.
    """

    def __init__(self, defaults: Mapping[str, str] | None = None) -> None:
        self._session = {name: p.default for name, p in PARAMETERS.items()}
        self._session.update({name.lower(): value for name, value in (defaults or {}).items()})
        self._reset = dict(self._session)
        self._current = dict(self._session)
        self._undo: list[tuple[str, str | None, str | None]] = []
        self.catalog_now: Callable[[], Any] | None = None
        """Gives the session's CatalogFunctions."""
        self.transaction_us: int | None = None
        """The transaction's start, in microseconds since 2000, which input such as 'today' reads."""
        self.follows = False
        """Whether the session reads on a follower, which can neither write nor read strongly."""
        self.version = 0
        """Grows with every change."""
        self.changed: set[str] = set()
        """Names changed since the connection last reported them."""
        self._refresh()

    @property
    def catalog(self) -> Any:
        """The session's CatalogFunctions as of now: names of objects and labels of enums are read and written by it."""
        return None if self.catalog_now is None else self.catalog_now()

    def _refresh(self) -> None:
        current = self._current
        self.version += 1
        self.isolation = current["transaction_isolation"]
        self.as_of = current["shardforge.as_of_system_time"]
        self.commit_key = current[COMMIT_KEY]
        self.modes = (self.isolation, self.as_of)
        """What a transaction keeps from its first query on."""
        self.reads_only = bool(self.as_of) or current["transaction_read_only"] == "on"
        self.timezone = current["timezone"]
        self.datestyle = current["datestyle"]
        self.intervalstyle = current["intervalstyle"]
        self.bytea_output = current["bytea_output"]
        self.extra_float_digits = int(current["extra_float_digits"])
        self.statement_timeout_ms = milliseconds(current["statement_timeout"])
        self.lock_timeout_ms = milliseconds(current["lock_timeout"])
        self.idle_in_transaction_timeout_ms = milliseconds(
            current["idle_in_transaction_session_timeout"]
        )
        self.idle_timeout_ms = milliseconds(current["idle_session_timeout"])
        self.search_path = split_identifiers(current["search_path"])
        self.binding = (
            self.timezone,
            self.datestyle,
            self.search_path,
            current["session_authorization"],
        )
        """What the meaning of a statement's text depends on: part of the key of cached plans."""

    def show(self, name: str) -> str:
        """The current value; 42704 for an unknown name."""
        value = self._current.get(name.lower())
        if value is None:
            parameter(name)
            raise AssertionError("a known parameter has a value")
        return value

    def get(self, name: str) -> str | None:
        """The current value, or None for an unknown name."""
        return self._current.get(name.lower())

    def all(self) -> list[tuple[str, str, str]]:
        """(name, value, description) of every parameter, by name."""
        rows = []
        for name in sorted(self._current):
            known = PARAMETERS.get(name)
            rows.append(
                (
                    known.name if known else name,
                    self._current[name],
                    known.description if known else "",
                )
            )
        return rows

    def set(self, name: str, value: str, *, local: bool = False) -> None:
        """SET [LOCAL]. A dotted name is the application's own and takes any text, but for our own prefix."""
        name = name.lower()
        if name.startswith(RESERVED_PREFIX) and name not in PARAMETERS:
            raise QueryError(
                f'invalid configuration parameter name "{name}"',
                "42602",
                detail=f'"{RESERVED_PREFIX[:-1]}" is a reserved prefix.',
            )
        if name == COMMIT_KEY and value and not local:
            raise QueryError(
                f'parameter "{COMMIT_KEY}" can only be set for one transaction',
                "55P02",
                hint="Use SET LOCAL.",
            )
        kept = normalized(name, value) if name in PARAMETERS or "." not in name else value
        if self.follows:
            _check_follower(name, kept)
        self._put(name, kept, local=local)

    def reset(self, name: str) -> None:
        """RESET one parameter."""
        name = name.lower()
        if "." not in name:
            parameter(name)
        self._put(name, self._reset.get(name, ""), local=False)

    def reset_all(self) -> None:
        """RESET ALL."""
        for name in list(self._current):
            known = PARAMETERS.get(name)
            if known is None or not known.read_only:
                self._put(name, self._reset.get(name, ""), local=False)

    def force(self, name: str, value: str) -> None:
        """Set what only the server may (for instance session_authorization), outside any transaction."""
        name = name.lower()
        self._session[name] = self._current[name] = self._reset[name] = value
        self.changed.add(name)
        self._refresh()

    def _put(self, name: str, value: str, *, local: bool) -> None:
        self._undo.append((name, self._session.get(name), self._current.get(name)))
        self._current[name] = value
        if not local:
            self._session[name] = value
        self.changed.add(name)
        self._refresh()

    def mark(self) -> int:
        """A point to roll back to: a savepoint's, or the transaction's start (0)."""
        return len(self._undo)

    def rollback_to(self, mark: int) -> None:
        """Undo every SET since `mark`."""
        while len(self._undo) > mark:
            name, session, current = self._undo.pop()
            _restore(self._session, name, session)
            _restore(self._current, name, current)
            self.changed.add(name)
        self._refresh()

    def end_transaction(self, *, committed: bool) -> None:
        """Keep (or undo) the transaction's SETs; SET LOCAL never outlives it."""
        if not self._undo:
            return
        if not committed:
            self.rollback_to(0)
            return
        for name, _, _ in self._undo:
            session = self._session.get(name)
            if self._current.get(name) != session:
                _restore(self._current, name, session)
                self.changed.add(name)
        self._undo.clear()
        self._refresh()


def _check_follower(name: str, value: str) -> None:
    """0A000 for what a follower cannot do."""
    if name == LEVEL and value == "strong":
        raise QueryError(
            "a session on a follower cannot read strongly",
            "0A000",
            hint=f"Connect without {LEVEL}: the connection is then served by the node that leads.",
        )
    if name == "transaction_read_only" and value == "off":
        raise QueryError(
            "cannot set transaction read-write mode during recovery",
            "0A000",
            detail="This session reads on a follower.",
            hint=f"Connect without {LEVEL} to write.",
        )


def _restore(values: dict[str, str], name: str, value: str | None) -> None:
    if value is None:
        values.pop(name, None)
    else:
        values[name] = value


def split_identifiers(text: str) -> tuple[str, ...]:
    """The names of a comma-separated identifier list such as search_path; 22023 when it is not one."""
    names: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        if text[position] == '"':
            end = text.find('"', position + 1)
            while end != -1 and text[end : end + 2] == '""':
                end = text.find('"', end + 2)
            if end == -1:
                raise QueryError(f'invalid value for parameter "search_path": "{text}"', "22023")
            names.append(text[position + 1 : end].replace('""', '"'))
            position = end + 1
        else:
            end = position
            while end < len(text) and text[end] != ",":
                end += 1
            names.append(text[position:end].strip().lower())
            position = end
        rest = text[position:].lstrip()
        if rest and not rest.startswith(","):
            raise QueryError(f'invalid value for parameter "search_path": "{text}"', "22023")
        position = len(text) - len(rest.removeprefix(",").lstrip())
        if not rest:
            break
    return tuple(name for name in names if name)
