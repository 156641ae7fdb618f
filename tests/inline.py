"""A Blocking port without threads."""

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Inline:
    """Makes each call in the loop itself, in its next turn, as if on an idle thread."""

    async def run(self, call: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return call()

    async def datasync(self, descriptor: int) -> None:
        await self.run(lambda: os.fdatasync(descriptor))
