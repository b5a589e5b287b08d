"""Reading a request's body, and noticing that its client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.requests import Request

from prunepool.api.body_memory import BodyReservation
from prunepool.errors import BodyTooLarge, RequestTimeout

_COMPLETE_BY = "prunepool.complete_by"


class ClientGone(Exception):
    """The client closed the connection before its answer was ready; nobody is left to be told."""


def expect_by(state: MutableMapping[str, Any], time_s: float) -> None:
    """Say by when a request must have arrived completely.

    Args:
        state: the request's.
        time_s: of the event loop's clock.
    """
    state[_COMPLETE_BY] = time_s


async def read_body(request: Request, limit: int, place: BodyReservation) -> bytes:
    """The whole body.

    Args:
        request: what to read from.
        limit: most bytes; a declared length is believed before anything is read.
        place: where they are held; until when is up to the caller.

    Raises:
        BodyTooLarge: it is, or says that it is, longer.
        Overloaded: there is no room for it beside those of other requests.
        RequestTimeout: it has not arrived by the time that the server was told to expect it.
        starlette.requests.ClientDisconnect: the client went away while sending.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise BodyTooLarge(f"the body has {declared[:18]} bytes; the limit is {limit}", limit=limit)
    if declared.isdecimal():
        place.expect(int(declared))
    chunks: list[bytes] = []
    size = 0
    try:
        async with (
            asyncio.timeout_at(request.scope.get("state", {}).get(_COMPLETE_BY)) as patience,
            aclosing(request.stream()) as stream,
        ):
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body is longer than the limit of {limit} bytes", limit=limit)
                if chunk:
                    place.take(len(chunk))
                    chunks.append(chunk)
    except TimeoutError:
        if not patience.expired():
            raise
        raise RequestTimeout(f"the request did not arrive in time: {size} bytes of its body did") from None
    return b"".join(chunks)  # no copy of a body that came in one piece


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel what runs inside when the client goes away.

    Args:
        request: whose body has been read to its end.

    Raises:
        ClientGone: it went away.
    """
    scope = asyncio.timeout(None)
    watcher = asyncio.create_task(_expire_when_gone(request, scope))
    try:
        async with scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def _expire_when_gone(request: Request, scope: asyncio.Timeout) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.reschedule(asyncio.get_running_loop().time())
