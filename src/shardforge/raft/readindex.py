"""Linearizable reads without a log entry: which ones wait for which round of heartbeats.

A read at the leader's commit index is linearizable once a quorum confirms, after the read arrived, that the
leader still leads. Confirmation of one read confirms every read before it. Source: thesis section 6.4.
"""

from __future__ import annotations

import msgspec

from shardforge.raft.messages import Message


class ReadState(msgspec.Struct, frozen=True):
    """A confirmed read: serve it once `index` is applied."""

    index: int
    context: bytes


class _Pending(msgspec.Struct):
    request: Message
    index: int
    confirmed: dict[int, bool]


class ReadIndexQueue:
    """Reads waiting for confirmation, by their context, oldest first."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: dict[bytes, _Pending] = {}

    def add(self, request: Message, index: int, own_id: int) -> None:
        """A read arrived while `index` was the commit index; asked again with its context, it keeps its place."""
        self._pending.setdefault(request.context, _Pending(request, index, {own_id: True}))

    def confirm(self, sender: int, context: bytes) -> dict[int, bool]:
        """Who confirmed this read so far, `sender` included."""
        pending = self._pending.get(context)
        if pending is None:
            return {}
        pending.confirmed[sender] = True
        return pending.confirmed

    def release(self, context: bytes) -> list[tuple[Message, int]]:
        """Take this read and all before it, with their indexes."""
        if context not in self._pending:
            return []
        released = []
        for key in list(self._pending):
            pending = self._pending.pop(key)
            released.append((pending.request, pending.index))
            if key == context:
                break
        return released

    def newest_context(self) -> bytes:
        """The context that confirms everything waiting; empty when nothing is."""
        return next(reversed(self._pending), b"")
