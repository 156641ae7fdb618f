"""The doors to the world: what waiting code may ask for, and nothing else.

Each port has two implementations: the real one in `adapters/`, and the simulator's. Pure code takes no
port; it takes time and randomness as arguments.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from shardforge.ids import NodeId

T = TypeVar("T")


class Clock(Protocol):
    """Time, in two kinds that must not be mixed."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary start, suspend included; never goes back."""
        ...

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; for people and now(), never for ordering."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...


class Blocking(Protocol):
    """Runs calls that block (fdatasync, long scans, checkpoints) away from the event loop."""

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()`, made on a thread; raises what it raises."""
        ...

    async def datasync(self, descriptor: int) -> None:
        """Return when what was written to a file is on disk (fdatasync); raises OSError."""
        ...


class Network(Protocol):
    """Messages between the nodes of a cluster, by node id. A node never talks to itself through it."""

    def set_address(self, node: NodeId, address: str) -> None:
        """Where `node` is reached from now on, as "host:port"."""
        ...

    def forget(self, node: NodeId) -> None:
        """Close what is open to a node that left."""
        ...

    def send(self, node: NodeId, frame: bytes) -> None:
        """Send one frame; it may be lost, also without a word. What arrives from one node keeps its order."""
        ...

    async def call(self, node: NodeId, method: str, body: bytes, timeout: float) -> bytes:
        """The answer of the node's handler for `method`.

        Raises: DatabaseError as the handler raised it; NetworkError 08006 when no answer came in `timeout` seconds,
        in which case the call may or may not have been carried out.
        """
        ...

    def on_frame(self, handler: Callable[[NodeId, bytes], None]) -> None:
        """Who takes the frames that arrive."""
        ...

    def on_call(self, method: str, handler: Callable[[NodeId, bytes], Awaitable[bytes]]) -> None:
        """Who answers the calls of one method."""
        ...
