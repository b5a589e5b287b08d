"""The smallest transport: a core on another thread's event loop, as a `CoreClient`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prunepool.core.types import RatioSpec, Request, Result
from prunepool.transport.client import CoreClient, ModelLoad, ModelOffer, Reservation


class ThreadCoreClient:
    """Forwards every call to a core that lives on the event loop of a thread of its own.

    Args:
        core: the way to it, on that loop.
        loop: runs there.
    """

    def __init__(self, core: CoreClient, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._thread = threading.Thread(target=loop.run_forever, daemon=True)

    @property
    def default_model(self) -> str:
        return self._core.default_model

    def offers(self) -> Mapping[str, ModelOffer]:
        return self._core.offers()

    def loads(self) -> Mapping[str, ModelLoad]:
        return self._core.loads()

    def failures(self) -> Mapping[str, str]:
        return self._core.failures()

    @contextmanager
    def reserve(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None, in_flight: int
    ) -> Iterator[Reservation]:
        yield _Reservation(self, model, generation, ratio_spec, deadline)

    async def start(self) -> None:
        self._thread.start()
        await self.there(self._core.start())

    def begin_drain(self) -> None:
        self._loop.call_soon_threadsafe(self._core.begin_drain)

    async def close(self, timeout_s: float) -> bool:
        if self._loop.is_closed():
            return True
        answered = bool(await self.there(self._core.close(timeout_s)))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()
        return answered

    async def there(self, call: object) -> object:
        """Await something on the core's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, self._loop))  # type: ignore[arg-type]

    async def answer(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None, request: Request
    ) -> Result:
        """Reserve and submit, on the core's loop."""
        with self._core.reserve(model, generation, ratio_spec, deadline, 0) as reservation:
            return await reservation.submit(request)


class _Reservation:
    def __init__(self, client: ThreadCoreClient, *reserved: object) -> None:
        self._client = client
        self._reserved = reserved

    async def submit(self, request: Request) -> Result:
        result = await self._client.there(self._client.answer(*self._reserved, request))  # type: ignore[arg-type]
        assert isinstance(result, Result)
        return result
