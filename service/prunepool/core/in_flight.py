"""Requests that are accepted and not yet answered: how many, and how many of them are still being decoded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

from prunepool.core.types import RatioSpec


class InFlight:
    """Counts requests from their acceptance to their answer; all calls come from one event loop.

    Attributes:
        count: requests accepted and not yet answered.
    """

    def __init__(self) -> None:
        self.count = 0
        self._decoding: Counter[RatioSpec] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._waiting: set[asyncio.Timeout] = set()

    @property
    def decoding(self) -> Mapping[RatioSpec, int]:
        """Accepted requests that have not reached the queue yet, by what they ask for."""
        return self._decoding

    def hold(self, ratio_spec: RatioSpec | None = None) -> Hold:
        """Count one request from now on, until what is returned is released.

        Args:
            ratio_spec: what it asks for; None: it is not counted among those that are being decoded.
        """
        self.count += 1
        self._empty.clear()
        self._decode(ratio_spec, 1)
        return Hold(self, ratio_spec)

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; whether that happened within `timeout_s` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s) as scope:
                self._waiting.add(scope)
                try:
                    await self._empty.wait()
                finally:
                    self._waiting.discard(scope)
        return not self.count

    def limit_wait(self, timeout_s: float) -> None:
        """Have :meth:`wait_empty` calls that are waiting now return within `timeout_s` seconds."""
        latest = asyncio.get_running_loop().time() + timeout_s
        for scope in self._waiting:
            when = scope.when()
            if when is None or when > latest:
                scope.reschedule(latest)

    def _decode(self, ratio_spec: RatioSpec | None, step: int) -> None:
        if ratio_spec is None:
            return
        self._decoding[ratio_spec] += step
        if not self._decoding[ratio_spec]:
            del self._decoding[ratio_spec]

    def _release(self) -> None:
        self.count -= 1
        if not self.count:
            self._empty.set()


class Hold:
    """One request in flight; a context that releases it at its end.

    Args:
        in_flight: where it is counted.
        ratio_spec: what it asks for, while it is being decoded.
    """

    def __init__(self, in_flight: InFlight, ratio_spec: RatioSpec | None) -> None:
        self._in_flight = in_flight
        self._decoding = ratio_spec
        self._held = True

    def decoded(self) -> None:
        """It has reached the queue: do not count it among those that are being decoded. Idempotent."""
        self._in_flight._decode(self._decoding, -1)
        self._decoding = None

    def release(self) -> None:
        """It is answered, or given up. Idempotent."""
        self.decoded()
        if self._held:
            self._held = False
            self._in_flight._release()

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
