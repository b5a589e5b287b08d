"""Reads request bodies, and notices when a client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.requests import Request

from prunepool.api.body_memory import BodyReservation
from prunepool.errors import BodyTooLarge, RequestTimeout

_RECEIVE_DEADLINE = "prunepool.receive_deadline"


class ClientGone(Exception):
    """The client closed the connection before its response was ready, so no response is sent."""


def set_receive_deadline(state: MutableMapping[str, Any], time_s: float) -> None:
    """Set the time by which a request must have arrived completely.

    Args:
        state: the state in the request's ASGI scope.
        time_s: seconds on the event loop's clock.
    """
    state[_RECEIVE_DEADLINE] = time_s


async def read_body(request: Request, limit: int, reservation: BodyReservation) -> bytes:
    """Read a body to its end.

    Args:
        request: the request, its body unread.
        limit: longest body in bytes; a longer Content-Length is refused before anything is read.
        reservation: counts the bytes; the caller releases it.

    Raises:
        BodyTooLarge: the body, or its Content-Length, exceeds the limit.
        Overloaded: the body does not fit into memory beside those of other requests.
        RequestTimeout: the body has not arrived by the deadline that :func:`set_receive_deadline` set.
        starlette.requests.ClientDisconnect: the client disconnected while sending.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLarge(f"the body has {declared[:18]} bytes; the limit is {limit}", limit=limit)
    if declared.isdecimal():
        reservation.check(int(declared))
    chunks: list[bytes] = []
    size = 0
    try:
        async with (
            asyncio.timeout_at(request.scope.get("state", {}).get(_RECEIVE_DEADLINE)) as deadline,
            aclosing(request.stream()) as stream,
        ):
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body is longer than the limit of {limit} bytes", limit=limit)
                if chunk:
                    reservation.add(len(chunk))
                    chunks.append(chunk)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise RequestTimeout(
            f"the request did not arrive in time: only {size} bytes of its body did"
        ) from None
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
