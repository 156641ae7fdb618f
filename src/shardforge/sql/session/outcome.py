"""What running a statement gives: rows to send, a command tag, or a COPY stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from shardforge.sql.bind.tree import OutputColumn

Row = tuple[Any, ...]


class CopyIn(Protocol):
    """COPY ... FROM STDIN under way: the connection feeds what the client sends."""

    columns: int
    binary: bool

    async def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        ...

    async def finish(self) -> str:
        """The stream is complete: write what is left and return the command tag."""
        ...


class CopyOut(Protocol):
    """COPY ... TO STDOUT under way."""

    columns: int
    binary: bool

    def pieces(self) -> AsyncIterator[bytes]:
        """The stream, a piece per row or batch."""
        ...

    def tag(self) -> str:
        """The command tag, once the pieces are through."""
        ...


@dataclass(slots=True)
class Outcome:
    """The result of one statement. At most one of `rows`, `batches`, `copy_in`, `copy_out` is set.

    `rows` are all there are. `batches` are still to come: whoever consumes them calls `complete` with their number to
    get the tag.
    """

    tag: str = ""
    columns: tuple[OutputColumn, ...] | None = None
    rows: list[Row] | None = None
    batches: AsyncIterator[list[Row]] | None = None
    copy_in: CopyIn | None = None
    copy_out: CopyOut | None = None

    def complete(self, count: int) -> str:
        """The command tag after `count` rows were sent."""
        return f"{self.tag} {count}" if self.batches is not None else self.tag
