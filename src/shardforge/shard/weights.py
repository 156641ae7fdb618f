"""How much of an entry commands take, and how a transaction's writes are cut into commands that are not too large.
PURE.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardforge.shard.command import (
    Absorb,
    Command,
    Commit,
    CommitRecord,
    KeyValue,
    Prepare,
    Resolve,
    Run,
)

COMMAND_BYTES_MAX = 1 << 18
"""A transaction's writes in one shard are cut into commands of about this size, so that applying one does
not hold up the event loop, nor fill the log with one entry."""
_WRITE_OVERHEAD = 64


def fits_one_command(writes: Sequence[KeyValue]) -> bool:
    """Whether `chunks` would leave the writes in one piece."""
    if len(writes) * _WRITE_OVERHEAD > COMMAND_BYTES_MAX:
        return False
    return size_of(writes) <= COMMAND_BYTES_MAX


def size_of(writes: Sequence[KeyValue]) -> int:
    """About how many bytes of an entry the writes take."""
    size = len(writes) * _WRITE_OVERHEAD
    for key, value in writes:
        size += len(key)
        if value is not None:
            size += len(value)
    return size


def chunks(writes: Sequence[KeyValue]) -> list[Sequence[KeyValue]]:
    """The writes in pieces of about `COMMAND_BYTES_MAX`."""
    if fits_one_command(writes):
        return [writes]
    pieces: list[Sequence[KeyValue]] = []
    start = size = 0
    for position, (key, value) in enumerate(writes):
        size += _WRITE_OVERHEAD + len(key) + (0 if value is None else len(value))
        if size >= COMMAND_BYTES_MAX:
            pieces.append(writes[start : position + 1])
            start, size = position + 1, 0
    if start < len(writes):
        pieces.append(writes[start:])
    return pieces


def weight(command: Command) -> int:
    """About how many bytes of an entry the command takes."""
    if isinstance(command, Commit | Prepare | CommitRecord):
        return size_of(command.writes)
    if isinstance(command, Run):
        return sum(map(weight, command.commands))
    if isinstance(command, Absorb):
        return size_of(command.pairs)
    if isinstance(command, Resolve):
        # Applying reads each key's intent, where it is not in memory, removes it, and writes a version.
        return len(command.keys) * 4 * _WRITE_OVERHEAD
    return _WRITE_OVERHEAD
