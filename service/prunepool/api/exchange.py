"""One request and its response on a connection, and whether the connection goes on after them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from prunepool.api.refusal import Refusal


class Exchange:
    """The application as one request sees it: every response says whether it is the last of its connection.

    A response that is sent before its request has arrived completely is the last: what is still to come could
    otherwise be taken for the next request.

    Args:
        app: the ASGI application.
        on_begin: called with the exchange when the application begins to run.

    Attributes:
        cycle: uvicorn's state of the request; set before the application runs.
        begun: whether the application has begun to run.
        refusal: the response instead of the application's, if the request is refused before that has begun.
        response_started: whether the headers of the response have been written.
        last: whether the connection closes after the response; known when the response has started.
    """

    cycle: RequestResponseCycle

    def __init__(self, app: ASGIApp, on_begin: Callable[[Exchange], None]) -> None:
        self._app = app
        self._on_begin = on_begin
        self.begun = False
        self.refusal: Refusal | None = None
        self.response_started = False
        self.last = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for this request."""
        self.begun = True
        self._on_begin(self)

        async def send_framed(message: Message) -> None:
            if message["type"] != "http.response.start":
                await send(message)
                return
            cycle = self.cycle
            if cycle.more_body:
                cycle.keep_alive = False  # uvicorn then adds `connection: close`
            if cycle.keep_alive and scope["http_version"] == "1.0":
                # A client of HTTP/1.0 keeps a connection only if it is told so.
                message["headers"] = [*message.get("headers", ()), (b"connection", b"keep-alive")]
            self.response_started = True
            await send(message)
            self.last = not cycle.keep_alive
            cycle.keep_alive = True  # or uvicorn would close at once, even with data unread

        if self.refusal is not None:
            await self.refusal.send(send_framed)
        else:
            await self._app(scope, receive, send_framed)
