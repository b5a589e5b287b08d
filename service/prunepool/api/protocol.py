"""HTTP/1.1 by uvicorn and httptools, with limits on headers, arrival time and connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from prunepool.api.connection import set_receive_deadline
from prunepool.api.problems import MEDIA_TYPE
from prunepool.errors import Overloaded

#: As large as common servers and proxies allow.
MAX_HEAD_BYTES = 32 * 1024
#: How long a client that still sends may read its error response, before its connection is closed.
_LINGER_S = 1.0
_log = structlog.stdlib.get_logger("prunepool.http")


def bounded_protocol(
    request_timeout_s: float, max_connections: int, count: Callable[[int, str], None]
) -> type[BoundedHttpProtocol]:
    """Make the protocol class for some limits; uvicorn makes an instance for each connection.

    Args:
        request_timeout_s: longest time from the first byte of a request to its last.
        max_connections: largest number of open connections.
        count: called with the status and error code of each request refused here, which no route sees.
    """
    limits = {
        "request_timeout_s": request_timeout_s,
        "max_connections": max_connections,
        "count": staticmethod(count),
    }
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), limits)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses requests whose headers are too long or that arrive too slowly.

    A request's time runs from its first byte, or from the start of the connection, to its last byte. Between two
    requests uvicorn's keep-alive timeout applies. When the time is over while a body is read, the reader of the
    body sends the error; this class closes the connection if the client goes on sending.
    """

    request_timeout_s: float
    max_connections: int
    count: Callable[[int, str], None]
    _idle_since = 0.0
    _head_bytes = 0
    _in_head = True
    _request_begun = False
    _receive_timer: asyncio.TimerHandle | None = None
    _receive_deadline = 0.0
    _reader_notified = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer: a client that sends nothing is a request that does not arrive."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        if len(self.connections) > self.max_connections and not self._evict_idle_connection():
            detail = (
                f"{self.max_connections} connections are open, which is the limit, and none of them is idle"
            )
            # The next response frees a connection, so the shortest time that the header can express.
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, Overloaded.code, detail, retry_after_s=1)
            self.connections.discard(self)
            return
        self._start_timer(self.request_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data in pieces, so that no more than `MAX_HEAD_BYTES` of headers are ever parsed."""
        if self._in_head and self._receive_timer is None:
            self._start_timer(self.request_timeout_s)
        while data and not self.transport.is_closing():
            piece = MAX_HEAD_BYTES - self._head_bytes + 1 if self._in_head else MAX_HEAD_BYTES
            self._parse(data[:piece])
            data = data[piece:]

    def _parse(self, data: bytes) -> None:
        """Parse a piece, and count it unless the headers were already complete."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            limit = f"the request line and headers must end within {MAX_HEAD_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", limit)

    def on_message_begin(self) -> None:
        """Begin a request, which may have arrived together with the one before it."""
        super().on_message_begin()
        self._request_begun = True
        if self._receive_timer is None:
            self._start_timer(self.request_timeout_s)
        set_receive_deadline(self.scope["state"], self._receive_deadline)

    def on_headers_complete(self) -> None:
        """Stop counting header bytes; :func:`read_body` counts those of the body."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Prepare for the headers of the next request."""
        super().on_message_complete()
        self._stop_timer()
        self._in_head = True
        self._request_begun = False
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        """Note since when the connection may be idle."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with a problem document as for every other error."""
        self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", msg)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _idle(self) -> bool:
        return self._in_head and not self._head_bytes and not self._answering

    def _evict_idle_connection(self) -> bool:
        """Close the connection that has been idle longest; return whether there was one."""
        idle = [other for other in self.connections if other is not self and other._idle]  # type: ignore[union-attr]
        if not idle:
            return False
        longest = min(idle, key=lambda other: other._idle_since)  # type: ignore[union-attr]
        longest.transport.close()
        self.connections.discard(longest)
        return True

    def _start_timer(self, seconds: float) -> None:
        self._receive_deadline = self.loop.time() + seconds
        self._receive_timer = self.loop.call_at(self._receive_deadline, self._on_receive_timeout)

    def _stop_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
        self._receive_timer = None
        self._reader_notified = False

    def _on_receive_timeout(self) -> None:
        self._receive_timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused or (self._in_head and self._answering):
            self._start_timer(self.request_timeout_s)  # the server is slow here, not the client
        elif self._in_head and (self._request_begun or self._head_bytes):
            limit = f"a request must arrive within {self.request_timeout_s:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", limit)
        elif self._answering and not self._reader_notified:
            self._reader_notified = True
            self._start_timer(_LINGER_S)  # the deadline of `read_body` is over too, and it sends the error
        else:
            self.transport.close()

    def _refuse(
        self, status: HTTPStatus, code: str, detail: str, *, retry_after_s: int | None = None
    ) -> None:
        client = self.client[0] if self.client else None
        self.count(status.value, code)
        # At debug level, so that a flood of connections is no flood of log lines; the metric counts them.
        write = _log.debug if status is HTTPStatus.SERVICE_UNAVAILABLE else _log.info
        write("request refused", client=client, status=status.value, code=code)
        if self._answering:  # the client would take this for the response that is still due
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
