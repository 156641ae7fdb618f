"""Two connections joined into one: what arrives on either leaves on the other, no faster than it is taken.

The two ends need not come at the same time; the first one waits, unread, for the second. When one is lost the other
is closed as soon as what it was sent has been written.
"""

from __future__ import annotations

import asyncio
from typing import cast


class End(asyncio.Protocol):
    """One of a pipe's connections."""

    def __init__(self, pipe: Pipe) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: End = self
        self._pipe = pipe
        self._early: list[bytes] = []
        """What came before there was another end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """This end is there."""
        self.transport = cast("asyncio.Transport", transport)
        if self._pipe.closed:
            self.transport.abort()
        elif self.other.transport is None:
            self.transport.pause_reading()
        else:
            self._pipe.joined()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other.transport is None:
            self._early.append(data)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)
            self._pipe.passed(self, data)

    def release_early(self) -> None:
        """There is another end now."""
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def pause_writing(self) -> None:
        """This end's reader is slow: read no more from the other."""
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """This end takes more."""
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """This end is gone."""
        self._pipe.lost()
        if self.other.transport is not None:
            self.other.transport.close()


class Pipe:
    """Both ends. `near` is the one that came to us, `far` the one we opened for it."""

    def __init__(self) -> None:
        self.near = End(self)
        self.far = End(self)
        self.near.other, self.far.other = self.far, self.near
        self.closed = False
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def joined(self) -> None:
        """Both ends are there."""
        for end in (self.near, self.far):
            assert end.transport is not None, "joined"
            end.transport.resume_reading()
            end.release_early()

    def passed(self, end: End, data: bytes) -> None:
        """Bytes that came from `end` were passed on."""

    def lost(self) -> None:
        """One of the ends is gone."""
        self.closed = True
        if not self._ended.done():
            self._ended.set_result(None)

    def abort(self) -> None:
        """End both connections now."""
        self.lost()
        for end in (self.near, self.far):
            if end.transport is not None:
                end.transport.abort()

    async def wait_closed(self) -> None:
        """Return when nothing is passed on any more."""
        await asyncio.shield(self._ended)
