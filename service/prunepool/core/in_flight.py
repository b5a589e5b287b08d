"""How many images are accepted and not yet answered, and how far they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prunepool.core.types import RatioSpec


class InFlight:
    """A number of places, each taken by one image from its acceptance to its answer."""

    def __init__(self) -> None:
        self.taken = 0
        self._arriving: Counter[RatioSpec] = Counter()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def arriving(self) -> Mapping[RatioSpec, int]:
        """The images that have a place and have not come to the queue yet, by ratio_spec."""
        return self._arriving

    @contextmanager
    def take(self, ratio_spec: RatioSpec) -> Iterator[None]:
        """Hold a place while the block runs, however it ends."""
        self.taken += 1
        self._free.clear()
        self._count(ratio_spec, 1)
        try:
            yield
        finally:
            self._count(ratio_spec, -1)
            self.taken -= 1
            if not self.taken:
                self._free.set()

    @contextmanager
    def arrived(self, ratio_spec: RatioSpec) -> Iterator[None]:
        """Not to be counted among the arriving while the block runs; for who holds a place."""
        self._count(ratio_spec, -1)
        try:
            yield
        finally:
            self._count(ratio_spec, 1)

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no place is taken; whether that came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.wait()
        except TimeoutError:
            return False
        return True

    def _count(self, ratio_spec: RatioSpec, step: int) -> None:
        self._arriving[ratio_spec] += step
        if not self._arriving[ratio_spec]:
            del self._arriving[ratio_spec]
