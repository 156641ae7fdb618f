"""What a DDL statement may do to its session: see `sql.ddl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.session.settings import Settings
from shardforge.txn.coordinator import Transaction

if TYPE_CHECKING:
    from shardforge.sql.session.session import Session


class SessionDdl:
    """The session as DDL sees it: its transaction, its catalog (own changes included), and a way to speak."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def transaction(self) -> Transaction:
        """The transaction that the change is part of."""
        return self.session.transaction()

    @property
    def catalog(self) -> CatalogSnapshot:
        """The catalog with this transaction's changes."""
        return self.session.catalog

    @catalog.setter
    def catalog(self, changed: CatalogSnapshot) -> None:
        self.session.overlay = changed

    @property
    def search_path(self) -> tuple[str, ...]:
        """Where names are looked up."""
        return self.session.search_path

    @property
    def settings(self) -> Settings:
        """The session's settings."""
        return self.session.settings

    def notice(
        self, severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = ""
    ) -> None:
        """Tell the client."""
        self.session.notice(severity, sqlstate, message, detail=detail, hint=hint)
