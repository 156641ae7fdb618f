"""The members' rows in the meta shard, read and written by transactions."""

from __future__ import annotations

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

    async def put(self, member: Member) -> None:
        """Write one member. Raises TransactionError."""
        transaction = self._coordinator.begin(Isolation.READ_COMMITTED)
        try:
            key = member_key(member.id)
            await transaction.lock([key], LockStrength.UPDATE, WaitPolicy.BLOCK)
            transaction.put(key, encode_member(member))
            await transaction.commit()
        except BaseException:
            await transaction.rollback()
            raise
