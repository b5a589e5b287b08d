"""Reads request bodies, and notices when a client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.requests import Request

from prunepool.api.body_memory import BodyReservation
from prunepool.errors import BodyTooLarge, RequestError, RequestTimeout

_ARRIVAL = "prunepool.arrival"


class ClientGone(Exception):
    """The client closed the connection before its response was ready, so no response is sent."""


class Arrival:
    """How a request arrives, as its connection tells it to the reader of its body.

    Args:
        deadline_s: when it must have arrived completely, in seconds on the event loop's clock; None for no limit.
    """

    def __init__(self, deadline_s: float | None) -> None:
        self.deadline_s = deadline_s
        self._fault: str | None = None
        self._reader: asyncio.Timeout | None = None

    def fail(self, why: str) -> None:
        """End the reading: the bytes that follow are no body."""
        self._fault = why
        if self._reader is not None:
            self._reader.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def reading(self, received: Callable[[], int]) -> AsyncIterator[None]:
        """Limit a block that reads the body.

        Args:
            received: the number of bytes read so far, for the error.

        Raises:
            RequestTimeout: the request has not arrived by the deadline.
            RequestError: what has arrived is no body.
        """
        try:
            if self._fault is not None:
                raise TimeoutError
            async with asyncio.timeout_at(self.deadline_s) as self._reader:
                yield
        except TimeoutError:
            if self._fault is not None:
                raise RequestError(self._fault) from None
            if self._reader is None or not self._reader.expired():
                raise
            raise RequestTimeout(
                f"the request did not arrive in time: only {received()} bytes of its body did"
            ) from None
        finally:
            self._reader = None


def set_arrival(state: MutableMapping[str, Any], arrival: Arrival) -> None:
    """Let the reader of a request's body know how the request arrives.

    Args:
        state: the state in the request's ASGI scope.
        arrival: of this request.
    """
    state[_ARRIVAL] = arrival


async def read_body(request: Request, limit: int, reservation: BodyReservation) -> bytes:
    """Read a body to its end.

    Args:
        request: the request, its body unread.
        limit: longest body in bytes; a longer Content-Length is refused before anything is read.
        reservation: counts the bytes; the caller releases it.

    Raises:
        BodyTooLarge: the body, or its Content-Length, exceeds the limit.
        Overloaded: the body does not fit into memory beside those of other requests.
        RequestTimeout: the body has not arrived by the deadline that :func:`set_arrival` set.
        RequestError: the bytes that came are no body, such as a chunk without a size.
        starlette.requests.ClientDisconnect: the client disconnected while sending.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLarge(f"the body has {declared[:18]} bytes; the limit is {limit}", limit=limit)
    if declared.isdecimal():
        reservation.check(int(declared))
    chunks: list[bytes] = []
    size = 0
    arrival = request.scope.get("state", {}).get(_ARRIVAL) or Arrival(None)
    async with arrival.reading(lambda: size), aclosing(request.stream()) as stream:
        async for chunk in stream:
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"the body is longer than the limit of {limit} bytes", limit=limit)
            if chunk:
                reservation.add(len(chunk))
                chunks.append(chunk)
    return b"".join(chunks)  # no copy of a body that came in one piece


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects.

    Args:
        request: a request whose body has been read to its end.

    Raises:
        ClientGone: the client disconnected.
    """
    timeout = asyncio.timeout(None)
    watcher = asyncio.create_task(_expire_on_disconnect(request, timeout))
    try:
        async with timeout:
            yield
    except TimeoutError:
        if timeout.expired():
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def _expire_on_disconnect(request: Request, scope: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.reschedule(asyncio.get_running_loop().time())
