"""The way out: which requests must still be answered, and which are told to try again.

A request is *received* until its body is complete and *answered* from then on. When the drain begins, what is
still being received is refused; what is being answered is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prunepool.errors import Draining


class Drain:
    """Keeps count of the requests under way; all calls come from the event loop.

    Args:
        timeout_s: how long the drain may take, and so what a refused caller is told to wait.
        clock: seconds of a monotonic clock.

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
        """Whether the server is on its way out."""
        return self._ends is not None

    @property
    def under_way(self) -> int:
        """Requests accepted and not yet answered."""
        return len(self._answering)

    @property
    def left_s(self) -> float:
        """Seconds that the drain may still take; all of them before it began."""
        return self._timeout_s if self._ends is None else max(0.0, self._ends - self._clock())

    def begin(self) -> None:
        """Refuse what comes from now on, and what has not come completely."""
        if self._ends is None:
            self._ends = self._clock() + self._timeout_s
        _expire(self._receiving)

    async def finished(self) -> bool:
        """Wait until every accepted request is answered, or the time of the drain is over.

        Returns:
            Whether all were answered.
        """
        assert self._ends is not None, "a drain ends only after it began"
        try:
            async with asyncio.timeout(self.left_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abandon(self) -> None:
        """Give up on the requests that are still being answered: they get `Draining`."""
        _expire(self._answering)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """While a request is being read.

        Raises:
            Draining: the server is stopping.
        """
        if self.started:
            raise self._refusal("new requests are not taken")
        async with self._until_expired(self._receiving, "the request had not arrived completely"):
            yield

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """While an accepted request is being answered.

        Raises:
            Draining: the time of the drain was over first.
        """
        self._idle.clear()
        try:
            async with self._until_expired(self._answering, "the request was not answered in time"):
                yield
        finally:
            if not self._answering:
                self._idle.set()

    @asynccontextmanager
    async def _until_expired(self, scopes: set[asyncio.Timeout], why: str) -> AsyncIterator[None]:
        scope = asyncio.timeout(None)
        try:
            async with scope:
                scopes.add(scope)
                try:
                    yield
                finally:
                    scopes.discard(scope)
        except TimeoutError:
            if scope.expired():
                raise self._refusal(why) from None
            raise

    def _refusal(self, why: str) -> Draining:
        """After the drain, this address is either gone or a successor's."""
        return Draining(f"the server is stopping: {why}", retry_after=max(self.left_s, 1.0))


def _expire(scopes: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for scope in list(scopes):
        scope.reschedule(now)
