"""What a connection is about to send: messages collected until there is a reason to write them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shardforge.server.pgwire import backend
from shardforge.server.pgwire.formats import Codecs
from shardforge.sql.bind.tree import OutputColumn
from shardforge.sql.session.outcome import Outcome, Row

if TYPE_CHECKING:
    from shardforge.telemetry import Telemetry

WRITE_BYTES = 64 * 1024
"""More than this is written out while a result is still being made."""


class Output:
    """Collects messages; `flush` writes them. `drained` holds a result back while the client does not read."""

    def __init__(self, codecs: Codecs, telemetry: Telemetry) -> None:
        self.codecs = codecs
        self._telemetry = telemetry
        self._pieces: list[bytes] = []
        self._size = 0
        self._transport: asyncio.WriteTransport | None = None
        self._writable: asyncio.Future[None] | None = None

    def attach(self, transport: asyncio.WriteTransport) -> None:
        """Write to `transport` from now on."""
        self._transport = transport

    def add(self, message: bytes) -> None:
        """Queue one message."""
        self._pieces.append(message)
        self._size += len(message)

    def flush(self) -> None:
        """Write what is queued."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._telemetry.bytes_sent_total += len(data)
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write(data)

    # ------------------------------------------------------------ flow control

    def pause(self) -> None:
        """The transport's buffer is full."""
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        """The transport's buffer has room again (or the connection is lost, and writing is harmless)."""
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    @property
    def writable(self) -> bool:
        """Whether the client takes what is written."""
        return self._writable is None

    async def drained(self) -> None:
        """Write what is queued, and wait until the client has taken enough of it."""
        self.flush()
        if self._writable is not None:
            await asyncio.shield(self._writable)

    # ------------------------------------------------------------ results

    def row_description(self, columns: Sequence[OutputColumn], formats: Sequence[int]) -> None:
        """RowDescription."""
        self.add(self.codecs.shape(columns, formats).description)

    def add_rows(
        self, rows: Sequence[Row], columns: Sequence[OutputColumn], formats: Sequence[int]
    ) -> None:
        """Queue DataRow messages."""
        encoders = self.codecs.shape(columns, formats).encoders
        self.add(b"".join(backend.data_rows(rows, encoders)))

    async def rows(
        self, rows: Sequence[Row], columns: Sequence[OutputColumn], formats: Sequence[int]
    ) -> None:
        """DataRow messages."""
        if not rows:
            return
        self.add_rows(rows, columns, formats)
        if self._size > WRITE_BYTES:
            await self.drained()

    async def send_outcome(
        self, outcome: Outcome, columns: Sequence[OutputColumn] | None, formats: Sequence[int]
    ) -> str:
        """All rows and CommandComplete; returns the tag."""
        count = 0
        if outcome.batches is not None:
            assert columns is not None, "batches have columns"
            async for batch in outcome.batches:
                count += len(batch)
                await self.rows(batch, columns, formats)
        elif outcome.rows is not None and columns is not None:
            count = len(outcome.rows)
            await self.rows(outcome.rows, columns, formats)
        tag = outcome.complete(count)
        if outcome.rows is not None and tag == "SELECT":
            tag = f"SELECT {count}"
        self.add(backend.command_complete(tag))
        return tag
