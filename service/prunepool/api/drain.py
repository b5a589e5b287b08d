"""Graceful shutdown: finishes the requests that were accepted, and refuses the others.

The server *receives* a request until its body is complete, and *answers* it from then on. When the drain begins,
requests that are still being received are refused; those that are being answered are waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prunepool.errors import Draining


class Drain:
    """Tracks the requests in flight. Call it from the event loop only.

    Args:
        timeout_s: longest duration of the drain, which is also the Retry-After of refused requests.
        clock: monotonic clock, in seconds.

    Attributes:
        broken: whether it began because this process cannot serve any more; liveness probes then fail.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float]) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._ends: float | None = None
        self.broken = False
        self._receiving: set[asyncio.Timeout] = set()
        self._answering: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def started(self) -> bool:
        """Whether the server is stopping."""
        return self._ends is not None

    @property
    def in_flight(self) -> int:
        """Number of requests accepted and not yet answered."""
        return len(self._answering)

    @property
    def remaining_s(self) -> float:
        """Seconds that the drain may still take; the whole timeout before it begins."""
        return self._timeout_s if self._ends is None else max(0.0, self._ends - self._clock())

    def begin(self) -> None:
        """Refuse new requests, and those that have not arrived completely."""
        if self._ends is None:
            self._ends = self._clock() + self._timeout_s
        _expire(self._receiving)

    async def finished(self) -> bool:
        """Wait until every accepted request is answered, or the drain times out.

        Returns:
            Whether all were answered in time.
        """
        assert self._ends is not None, "a drain ends only after it began"
        try:
            async with asyncio.timeout(self.remaining_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abandon(self) -> None:
        """Fail the requests that are still being answered, with `Draining`."""
        _expire(self._answering)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Track a request while its body is read.

        Raises:
            Draining: the server is stopping.
        """
        if self.started:
            raise self._refusal("new requests are refused")
        async with self._until_expired(self._receiving, "the request had not arrived completely"):
            yield

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Track an accepted request until it is answered.

        Raises:
            Draining: the drain timed out first.
        """
        self._idle.clear()
        try:
            async with self._until_expired(self._answering, "the request was not answered in time"):
                yield
        finally:
            if not self._answering:
                self._idle.set()

    @asynccontextmanager
    async def _until_expired(self, timeouts: set[asyncio.Timeout], why: str) -> AsyncIterator[None]:
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                timeouts.add(timeout)
                try:
                    yield
                finally:
                    timeouts.discard(timeout)
        except TimeoutError:
            if timeout.expired():
                raise self._refusal(why) from None
            raise

    def _refusal(self, why: str) -> Draining:
        """Make the error; a retry after the drain reaches the next server at this address."""
        return Draining(f"the server is stopping: {why}", retry_after=max(self.remaining_s, 1.0))


def _expire(timeouts: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for timeout in list(timeouts):
        timeout.reschedule(now)
