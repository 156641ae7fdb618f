"""Sessions that read the past: on a node that nobody leads (a standby tenure), and on a follower of one that serves.

Both are read only. A standby stands at one timestamp, and what a read accepts is asked of its consistency level. A
follower's statement draws the newest closed timestamp, together with the catalog of that timestamp and without waiting
in between; what has drawn one earlier (a REPEATABLE READ transaction, a block with a cursor open) keeps both.
Invariant: a statement over tables reads at a timestamp with the schema of that timestamp, and none reads strongly.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING
from weakref import WeakSet

from shardforge.errors import ConsensusError, TransactionError
from shardforge.sql.catalog.snapshot import CatalogSnapshot
from shardforge.sql.session.outcome import Row
from shardforge.sql.session.settings import LEVEL
from shardforge.txn.coordinator import Isolation, Transaction

if TYPE_CHECKING:
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session
    from shardforge.txn.following import FollowerStore


class Stream:
    """The batches of a query, known to be open until they are all taken or given up."""

    def __init__(self, batches: AsyncGenerator[list[Row], None]) -> None:
        self._batches = batches
        self.open = True

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> list[Row]:
        try:
            return await anext(self._batches)
        except BaseException:
            self.open = False
            raise

    async def aclose(self) -> None:
        """Give up the rest."""
        self.open = False
        await self._batches.aclose()


class Past:
    """How one session reads the past."""

    def __init__(self, session: Session) -> None:
        self.schema: CatalogSnapshot | None = None
        """The catalog of a timestamp that the transaction keeps; None: statements are bound to the current one."""
        self._drawn: CatalogSnapshot | None = None
        self._streams: WeakSet[Stream] = WeakSet()
        self._session = session

    @property
    def _follower(self) -> FollowerStore | None:
        return self._session.instance.follower

    @property
    def hint(self) -> str:
        """What who wants to write may do."""
        if self._follower is None:
            return ""
        return f"This session reads on a follower. Connect without {LEVEL} to write."

    def _age_us_max(self) -> int | None:
        if self._session.settings.show(LEVEL) == "eventual":
            return None
        return self._session.instance.config.replication.max_staleness_ms * 1000

    # ---- statements ------------------------------------------------------------------------------

    def look(self) -> None:
        """A statement comes: the catalog that it is bound to is the newest that can be read."""
        follower = self._follower
        if follower is not None:
            follower.wanted()
            follower.advance()
            transaction = self._session.open_transaction
            if transaction is None or not self._keeps(transaction):
                self.schema = None

    def _keeps(self, transaction: Transaction) -> bool:
        """Whether the transaction's next statement reads at the same timestamp as its last one."""
        if not transaction.snapshot:
            return False
        repeats = transaction.isolation is not Isolation.READ_COMMITTED
        return repeats or any(one.open for one in self._streams)

    def check(self, prepared: Prepared) -> None:
        """Nothing is written; on a standby, tables are read only by those who accept the past."""
        if prepared.kind != "select":
            detail = "This node cannot reach a majority of the cluster."
            raise TransactionError(
                f"cannot execute {prepared.kind.upper()} in a read-only transaction", "25006",
                detail=detail if self._follower is None else "", hint=self.hint,
            )  # fmt: skip
        if prepared.locks and self._follower is None:
            self._check_standby()

    def _check_standby(self) -> None:
        instance = self._session.instance
        level, age_us_max = self._session.settings.show(LEVEL), self._age_us_max()
        age_us = instance.clock.monotonic_ns() // 1000 - instance.standby_us
        if level == "strong" or (age_us_max is not None and age_us > age_us_max):
            raise ConsensusError(
                f"this node cannot reach a majority of the cluster, which a {level} read needs",
                detail=""
                if level == "strong"
                else "What it holds is older than replication.max_staleness_ms.",
                hint=f"SET {LEVEL} = 'eventual' reads what this node holds,"
                f" as it was {age_us / 1e6:.1f} seconds ago.",
            )

    def ready_now(self, prepared: Prepared) -> bool:
        """Whether a statement of one key may be answered outside a transaction, at the timestamp of this moment."""
        follower = self._follower
        if follower is None or not follower.ready(self._age_us_max()):
            return False
        return prepared.catalog_version == self._session.catalog.version

    async def begin_statement(self, transaction: Transaction, prepared: Prepared) -> Prepared:
        """Draw what the statement reads at, which is bound again if the catalog of that time is another.

        Raises ConsensusError 57P03 when there is nothing that it accepts.
        """
        if self._follower is None:
            transaction.begin_statement()
            return prepared
        if not prepared.locks:
            return prepared
        session = self._session
        if self._keeps(transaction):
            self.schema = self._drawn
            return session.refreshed(prepared)
        transaction.begin_statement()
        self.schema = None
        await self._wait(self._follower)
        # Nothing is awaited from here on that has to wait: timestamp and catalog are of one moment.
        prepared = session.refreshed(prepared)
        await transaction.read_timestamp()
        self._drawn = session.catalog
        if transaction.isolation is not Isolation.READ_COMMITTED:
            self.schema = self._drawn
        return prepared

    async def _wait(self, follower: FollowerStore) -> None:
        if await follower.wait_ready(self._age_us_max()):
            return
        if not follower.whole:
            raise ConsensusError(
                "this node does not hold all shards any more",
                hint="Connect again: another node answers.",
            )
        raise ConsensusError(
            "what this node can read is older than replication.max_staleness_ms",
            detail=f"It is {follower.age_us / 1e6:.1f} seconds old.",
            hint=f"SET {LEVEL} = 'eventual' reads it all the same. Connect again to be served by another node.",
        )

    def stream(self, batches: AsyncGenerator[list[Row], None]) -> Stream:
        """The batches of the statement that has just begun."""
        stream = Stream(batches)
        self._streams.add(stream)
        return stream

    def ended(self) -> None:
        """The transaction has ended."""
        self.schema = self._drawn = None
        self._streams.clear()
