"""The savepoints of a session's transaction, and what each keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardforge.errors import TransactionError
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.execute.deferral import DeferralMark

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


@dataclass(slots=True)
class Savepoint:
    """What ROLLBACK TO restores."""

    name: str
    mark: int
    settings: int
    overlay: CatalogSnapshot | None
    deferral: DeferralMark
    channels: tuple[int, int]
    advisory: int


class Savepoints:
    """Those of one session, the oldest first. A name may be used again: it hides the older one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._all: list[Savepoint] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def clear(self) -> None:
        """The transaction is over."""
        self._all.clear()

    def begin(self, name: str) -> None:
        """SAVEPOINT."""
        session = self._session
        mark = session.transaction().savepoint()
        deferral = session.context().deferral.mark()
        self._all.append(
            Savepoint(
                name, mark, session.settings.mark(), session.overlay, deferral,
                session.channels.mark(), session.advisory.mark(),
            )
        )  # fmt: skip

    def release(self, name: str) -> None:
        """RELEASE SAVEPOINT: it and those after it are forgotten, their changes kept. Raises: 3B001."""
        offset = self._find(name)
        self._session.transaction().release(self._all[offset].mark)
        del self._all[offset:]

    def rollback_to(self, name: str) -> None:
        """ROLLBACK TO SAVEPOINT: a failed block goes on from there. Raises: 3B001."""
        session, offset = self._session, self._find(name)
        savepoint = self._all[offset]
        session.transaction().rollback_to(savepoint.mark)
        session.settings.rollback_to(savepoint.settings)
        session.overlay = savepoint.overlay
        session.context().deferral.rollback_to(savepoint.deferral)
        session.channels.rollback_to(savepoint.channels)
        session.advisory.rollback_to(savepoint.advisory)
        del self._all[offset + 1 :]
        session.status = "T"

    def _find(self, name: str) -> int:
        for offset in range(len(self._all) - 1, -1, -1):
            if self._all[offset].name == name:
                return offset
        raise TransactionError(f'savepoint "{name}" does not exist', "3B001")
