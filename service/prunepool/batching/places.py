"""How many images are accepted and not yet answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """A number of places, each taken by one image from its acceptance to its answer."""

    def __init__(self) -> None:
        self.taken = 0
        self._free = asyncio.Event()
        self._free.set()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place while the block runs, however it ends."""
        self.taken += 1
        self._free.clear()
        try:
            yield
        finally:
            self.taken -= 1
            if not self.taken:
                self._free.set()

    async def all_free(self, timeout_s: float) -> bool:
        """Wait until no place is taken; whether that came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.wait()
        except TimeoutError:
            return False
        return True
