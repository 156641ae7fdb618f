"""The members' rows in the meta shard, read and written by transactions."""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.cluster.members import (
    MEMBERS_START,
    Member,
    decode_member,
    encode_member,
    member_key,
)
from shardforge.keys import prefix_end
from shardforge.txn.coordinator import Coordinator, Isolation, LockStrength, WaitPolicy


class MemberRows:
    """Where the members of a cluster are kept."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def load(self) -> list[Member]:
        """All members, those that have left included."""
        transaction = self._coordinator.begin(Isolation.READ_COMMITTED, read_only=True)
        try:
            found = transaction.scan(MEMBERS_START, prefix_end(MEMBERS_START))
            return [decode_member(value) async for rows in found for _, value in rows]
        finally:
            await transaction.rollback()

    async def put(self, members: Sequence[Member]) -> None:
        """Write members, all or none. Raises TransactionError."""
        transaction = self._coordinator.begin(Isolation.READ_COMMITTED)
        try:
            keys = [member_key(member.id) for member in members]
            await transaction.lock(keys, LockStrength.UPDATE, WaitPolicy.BLOCK)
            for key, member in zip(keys, members, strict=True):
                transaction.put(key, encode_member(member))
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise
