"""HTTP/1.1 as uvicorn and httptools speak it, with limits on requests, their time and their connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prunepool.api.connection import expect_by
from prunepool.api.problems import MEDIA_TYPE
from prunepool.errors import Overloaded

#: As much as common servers and proxies let through.
MAX_HEAD_BYTES = 32 * 1024
#: For an answer to be read by a client that still sends, before its connection is ended.
_LAST_WORDS_S = 1.0
_log = structlog.stdlib.get_logger("prunepool.http")


def bounded_protocol(
    request_timeout_s: float, max_connections: int, count: Callable[[int, str], None]
) -> type[BoundedHttpProtocol]:
    """The protocol with its limits.

    Args:
        request_timeout_s: how long a request may take to arrive, from its first byte to its last.
        max_connections: most connections at once.
        count: told the status and the code of what is refused here, before it is a request.
    """
    limits = {
        "request_timeout_s": request_timeout_s,
        "max_connections": max_connections,
        "count": staticmethod(count),
    }
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), limits)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Ends connections whose requests do not end: whose headers are too long, or that come too slowly.

    The time counts from a connection's start, or from the first byte that comes after an answer, to the last
    byte of the request. Between the two uvicorn's time for idle connections counts. A body's reader is told
    when the time is over, and answers; here the connection of a client that still does not end is closed.
    """

    request_timeout_s: float
    max_connections: int
    count: Callable[[int, str], None]
    _idle_since = 0.0
    _head_bytes = 0
    _in_head = True
    _begun = False
    _patience: asyncio.TimerHandle | None = None
    _over_at = 0.0
    _told = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that says nothing is a request that does not arrive."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        if len(self.connections) > self.max_connections and not self._free_a_place():
            detail = (
                f"{self.max_connections} connections are open, which is the limit, and none of them is idle"
            )
            # A place is free with the next answer: as soon as this header can say.
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, Overloaded.code, detail, retry_after_s=1)
            self.connections.discard(self)
            return
        self._wait(self.request_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """There is nothing to wait for any more."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrives, in pieces that end where headers that are too long would be complete."""
        if self._in_head and self._patience is None:
            self._wait(self.request_timeout_s)
        while data and not self.transport.is_closing():
            piece = MAX_HEAD_BYTES - self._head_bytes + 1 if self._in_head else MAX_HEAD_BYTES
            self._parse(data[:piece])
            data = data[piece:]

    def _parse(self, data: bytes) -> None:
        """Parse a piece, counted if headers are not complete before it."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            limit = f"the request line and headers must end within {MAX_HEAD_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", limit)

    def on_message_begin(self) -> None:
        """Another request, which may have come together with the one before it."""
        super().on_message_begin()
        self._begun = True
        if self._patience is None:
            self._wait(self.request_timeout_s)
        expect_by(self.scope["state"], self._over_at)

    def on_headers_complete(self) -> None:
        """From here on the body is counted, by who reads it."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another request's head."""
        super().on_message_complete()
        self._wait_no_longer()
        self._in_head = True
        self._begun = False
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        """It may be idle from now on."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in the shape of all other errors."""
        self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _idle(self) -> bool:
        return self._in_head and not self._head_bytes and not self._answering

    def _free_a_place(self) -> bool:
        """End the connection that has been idle longest, for one that has something to say; whether any was."""
        idle = [other for other in self.connections if other is not self and other._idle]  # type: ignore[union-attr]
        if not idle:
            return False
        longest = min(idle, key=lambda other: other._idle_since)  # type: ignore[union-attr]
        longest.transport.close()
        self.connections.discard(longest)
        return True

    def _wait(self, seconds: float) -> None:
        self._over_at = self.loop.time() + seconds
        self._patience = self.loop.call_at(self._over_at, self._time_is_over)

    def _wait_no_longer(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None
        self._told = False

    def _time_is_over(self) -> None:
        self._patience = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused or (self._in_head and self._answering):
            self._wait(self.request_timeout_s)  # it is this side that takes its time
        elif self._in_head and (self._begun or self._head_bytes):
            limit = f"a request must arrive within {self.request_timeout_s:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", limit)
        elif self._answering and not self._told:
            self._told = True
            self._wait(_LAST_WORDS_S)  # the body's reader learns of it now, and answers
        else:
            self.transport.close()

    def _refuse(
        self, status: HTTPStatus, code: str, detail: str, *, retry_after_s: int | None = None
    ) -> None:
        client = self.client[0] if self.client else None
        self.count(status.value, code)
        # A flood of connections shall not become a flood of lines; the count tells of it.
        write = _log.debug if status is HTTPStatus.SERVICE_UNAVAILABLE else _log.info
        write("request refused", client=client, status=status.value, code=code)
        if self._answering:  # these would be taken for the answer that is still to come
            self.transport.abort()
            return
        document = {
            "type": f"urn:prunepool:error:{code}",
            "title": status.phrase,
            "status": status.value,
            "code": code,
            "detail": detail,
        }
        later = ""
        if retry_after_s is not None:
            document["retry_after"] = retry_after_s
            later = f"retry-after: {retry_after_s}\r\n"
        body = orjson.dumps(document)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\n{later}"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
