"""Which sessions a node that does not serve answers by itself, at closed timestamps, and which it passes on.

Whoever writes must not be refused (25006) because of a default. So a session that asks for `bounded` or `eventual`
itself is answered, unless it says that it writes; where only the role's or the cluster's default is such a level, it
must also be known to read only, by its own word or its role's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shardforge.errors import QueryError
from shardforge.sql.session.parameters import normalized
from shardforge.sql.session.settings import LEVEL

if TYPE_CHECKING:
    from shardforge.server.pgwire.server import Server
    from shardforge.sql.session.instance import Instance

READ_ONLY = "default_transaction_read_only"


def level_for(given: Mapping[str, str], role: Mapping[str, str], cluster: str) -> str:
    """The level at which a follower may answer a session; "strong": it may not.

    `given` are the settings that the session begins with, `role` those of its role, and `cluster` is
    replication.consistency_level.
    """
    own = {name.lower(): value for name, value in given.items()}
    try:
        asked, writes = _kept(own, LEVEL), _kept(own, READ_ONLY)
        if asked is not None:
            return "strong" if writes == "off" else asked
        reads_only = (writes or _kept(role, READ_ONLY)) == "on"
        return (_kept(role, LEVEL) or cluster) if reads_only else "strong"
    except QueryError:
        return "strong"  # whoever serves says what is wrong


def _kept(settings: Mapping[str, str], name: str) -> str | None:
    value = settings.get(name)
    return None if value is None else normalized(name, value)


async def follower_of(
    server: Server, user: str, database: str, given: Mapping[str, str]
) -> Instance | None:
    """The instance that answers a session here; None: it is for the node that serves."""
    following = server.following
    if following is None or server.serves:
        return None
    cluster = server.config.replication.consistency_level
    known = following.known()
    role = None if known is None else known.catalog.role_named(user)
    level = level_for(given, {} if role is None else role.settings, cluster)
    if level == "strong":
        return None
    instance = await following.ready(level)
    if instance is None or server.serves:
        return None
    role = instance.catalog.role_named(user)
    if role is None or instance.catalog.database_named(database) is None:
        return None  # it may be there by now
    if level_for(given, role.settings, cluster) != level:
        return None
    instance.interrupt_session = server.interrupt_session
    return instance
