"""What a DDL statement may do to its session: see `sql.ddl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.catalog.tablelocks import LockOwner
from shardforge.sql.execute import ExecContext
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
    def store(self) -> CatalogStore:
        """The node's catalog."""
        return self.session.instance.catalog

    @property
    def lock_owner(self) -> LockOwner:
        """Holder of this transaction's table locks."""
        return self.session.lock_owner

    @property
    def session_id(self) -> int:
        """Names the session's temporary schema."""
        return self.session.process_id

    @property
    def user(self) -> str:
        """Who owns what is created."""
        return self.session.user

    @property
    def in_block(self) -> bool:
        """Whether BEGIN has been given."""
        return self.session.in_block

    @property
    def execution(self) -> ExecContext:
        """What expressions over rows are evaluated with."""
        return self.session.context()

    def sessions_of(self, database: str) -> int:
        """How many other sessions use a database."""
        others = self.session.instance.sessions.values()
        return sum(s is not self.session and s.database == database for s in others)

    @property
    def settings(self) -> Settings:
        """The session's settings."""
        return self.session.settings

    def notice(
        self, severity: str, sqlstate: str, message: str, *, detail: str = "", hint: str = ""
    ) -> None:
        """Tell the client."""
        self.session.notice(severity, sqlstate, message, detail=detail, hint=hint)


def begin_ddl(session: Session) -> SessionDdl:
    """What the next DDL statement works with, in the session's transaction."""
    context = session.context()
    context.transaction = session.transaction()
    context.transaction.begin_statement()
    return session.ddl_context()
