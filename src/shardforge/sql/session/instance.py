"""What all sessions of a node share: the store, the catalog, cached plans, and who is connected."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shardforge.config import Config
from shardforge.ports import Clock
from shardforge.sql.catalog.store import CatalogStore
from shardforge.sql.session.channels import Channels
from shardforge.telemetry import Telemetry
from shardforge.txn.locks import LockTable

if TYPE_CHECKING:
    from shardforge.sql.session.lifted import Form
    from shardforge.sql.session.prepared import Prepared
    from shardforge.sql.session.session import Session
    from shardforge.txn.following import FollowerStore
    from shardforge.txn.standby import StandbyStore
    from shardforge.txn.store import Store

FOLLOWER_PROCESS_IDS = 0x4000_0000
"""Where numbers of sessions that read the past begin: the serving node's stay below, and the temporary tables of its
sessions are in the catalog that is read."""

PlanKey = tuple[object, ...]


class PlanCache:
    """Prepared statements by text, types, catalog version and settings; the least recently used goes first.

    What is known of templates (see `lifting`) is kept beside them, under the same limit; 0: nothing is kept.
    """

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._plans: OrderedDict[PlanKey, Prepared] = OrderedDict()
        self._forms: OrderedDict[PlanKey, Form] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, key: PlanKey) -> Prepared | None:
        """The cached statement, now the most recently used."""
        found = self._plans.get(key)
        if found is not None:
            self._plans.move_to_end(key)
        return found

    def put(self, key: PlanKey, prepared: Prepared) -> None:
        """Keep `prepared`."""
        if self.size_max == 0:
            return
        self._plans[key] = prepared
        if len(self._plans) > self.size_max:
            self._plans.popitem(last=False)

    def form(self, key: PlanKey) -> Form | None:
        """What is known of a template, now the most recently used."""
        found = self._forms.get(key)
        if found is not None:
            self._forms.move_to_end(key)
        return found

    def put_form(self, key: PlanKey, form: Form) -> None:
        """Keep what is known of a template."""
        if self.size_max == 0:
            return
        self._forms[key] = form
        if len(self._forms) > self.size_max:
            self._forms.popitem(last=False)

    def clear(self) -> None:
        """Forget all: the catalog has changed."""
        self._plans.clear()
        self._forms.clear()


@dataclass(slots=True)
class Instance:
    """One node's SQL side. `cancel` is called by sessions for pg_cancel_backend and pg_terminate_backend."""

    config: Config
    store: Store | StandbyStore | FollowerStore
    catalog: CatalogStore
    clock: Clock
    telemetry: Telemetry
    random: random.Random
    plans: PlanCache
    sessions: dict[int, Session] = field(default_factory=dict)
    channels: Channels = field(default_factory=Channels)
    advisory: LockTable = field(default_factory=LockTable)
    """Of sessions, by `advisory.Tag`."""
    set_log_level: Callable[[str], None] = lambda level: None
    started_us: int = 0
    """When the node started, in microseconds since 1970."""
    interrupt_session: Callable[[Session, bool], bool] = lambda session, terminate: False
    """Set by the server: cancel a session's statement, or end the session."""
    standby: int = 0
    """The time as of which everything is read, on a node that nobody leads; 0: this node leads."""
    standby_us: int = 0
    """A moment of the monotonic clock: what was committed before it is in that state."""
    follower: FollowerStore | None = None
    """The store, where it reads at closed timestamps beside another node that serves."""
    next_process_id: int = 1

    @property
    def reads_past(self) -> bool:
        """Whether nothing is written here, and what is read may be older than what was committed."""
        return bool(self.standby) or self.follower is not None

    def interrupt(self, process_id: int, *, terminate: bool) -> bool:
        """Cancel what a session runs, or end it; False when there is no such session."""
        session = self.sessions.get(process_id)
        return session is not None and self.interrupt_session(session, terminate)

    def add(self, session: Session) -> None:
        """A session begins."""
        self.sessions[session.process_id] = session
        self.telemetry.connections += 1

    def remove(self, session: Session) -> None:
        """A session has ended."""
        if self.sessions.pop(session.process_id, None) is not None:
            self.telemetry.connections -= 1

    def take_process_id(self) -> int:
        """A number for a new session, not in use."""
        while self.next_process_id in self.sessions:
            self.next_process_id = self.next_process_id % 0x7FFFFFFF + 1
        number = self.next_process_id
        self.next_process_id = number % 0x7FFFFFFF + 1
        return number
