"""What surrounds simulated nodes: weather, clocks that drift and jump, disks that take time and break, pauses.

Every random choice comes from the world's one generator, and every delivery goes into its trace: equal seeds give equal
traces.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from shardforge.ids import NodeId

if TYPE_CHECKING:
    from shardforge.sim.network import SimNetwork

T = TypeVar("T")

WALL_START_US = 1_700_000_000_000_000
SLOWNESS = 100
"""How many times as long a slow disk takes."""


@dataclass(slots=True)
class Weather:
    """What the network and the disks are like now."""

    loss: float = 0.0
    duplicates: float = 0.0
    delay_seconds: float = 0.001
    spike: float = 0.0
    """The share of frames that take up to a hundred times as long, and so are overtaken."""
    disk_seconds: float = 0.0005


class World:
    """One simulation's surroundings."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.weather = Weather()
        self.networks: dict[NodeId, SimNetwork] = {}
        self.cut: set[tuple[NodeId, NodeId]] = set()
        """(from, to): what is lost on its way."""
        self.slow: set[NodeId] = set()
        """Nodes whose disks are slow."""
        self.broken: dict[NodeId, int] = {}
        """Nodes whose disks refuse every call, and with which errno."""
        self.trace = 0
        self.deliveries = 0
        self._paused: dict[NodeId, asyncio.Event] = {}

    def note(self, what: bytes) -> None:
        """Add to the trace."""
        now = asyncio.get_running_loop().time()
        self.trace = zlib.crc32(b"%.9f %s" % (now, what), self.trace)

    def delay(self) -> float:
        """How long a frame takes."""
        weather = self.weather
        taken = weather.delay_seconds * (0.5 + self.random.random())
        if weather.spike and self.random.random() < weather.spike:
            taken *= self.random.uniform(1, 100)
        return taken

    def arrives(self, sender: NodeId, receiver: NodeId) -> bool:
        """Whether a frame that is on its way comes through."""
        if (sender, receiver) in self.cut:
            return False
        return not self.weather.loss or self.random.random() >= self.weather.loss

    # ---- pauses ----------------------------------------------------------------------------------

    def pause(self, node: NodeId) -> None:
        """Let a node stand still: time passes, and it notices nothing."""
        self._paused.setdefault(node, asyncio.Event())

    def resume(self, node: NodeId) -> None:
        """Let it go on where it was."""
        event = self._paused.pop(node, None)
        if event is not None:
            event.set()

    def paused(self, node: NodeId) -> bool:
        """Whether the node stands still."""
        return node in self._paused

    async def while_paused(self, node: NodeId) -> None:
        """Return when the node does not stand still."""
        while (event := self._paused.get(node)) is not None:
            await event.wait()


class SimClock:
    """`ports.Clock` of one node: it runs `rate` times as fast as the world, and its wall time may jump."""

    def __init__(self, world: World, node: NodeId, rate: float, wall_offset_us: int) -> None:
        self._world = world
        self._node = node
        self._rate = rate
        self.wall_offset_us = wall_offset_us

    def monotonic_ns(self) -> int:
        """Nanoseconds of this clock since the world began."""
        return int(asyncio.get_running_loop().time() * self._rate * 1e9)

    def wall_us(self) -> int:
        """What this node takes for the time of day."""
        return WALL_START_US + self.monotonic_ns() // 1000 + self.wall_offset_us

    async def sleep(self, seconds: float) -> None:
        """Wait, by this clock."""
        await asyncio.sleep(seconds / self._rate)
        await self._world.while_paused(self._node)


class SimBlocking:
    """`ports.Blocking` of one node: a call takes the disk's time, and happens somewhere within it."""

    def __init__(self, world: World, node: NodeId) -> None:
        self._world = world
        self._node = node

    async def run(self, call: Callable[[], T]) -> T:
        """Make the call. A crash before its moment means that it never happened. Raises OSError on a broken disk."""
        world = self._world
        taken = world.weather.disk_seconds * (0.5 + world.random.random())
        if self._node in world.slow:
            taken *= SLOWNESS
        share = world.random.random()
        await asyncio.sleep(taken * share)
        refused = world.broken.get(self._node)
        if refused is not None:
            raise OSError(refused, errno.errorcode[refused])
        result = call()
        await asyncio.sleep(taken * (1 - share))
        await world.while_paused(self._node)
        return result

    async def datasync(self, descriptor: int) -> None:
        """The same of an fdatasync. Simulated logs are in memory and ask for none."""
        await self.run(partial(os.fdatasync, descriptor))
