"""HTTP/1.1 by uvicorn and httptools, with limits on time and connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import structlog

from prunepool.api.closing import HalfClosed, Lingering
from prunepool.api.connection import Arrival, set_arrival
from prunepool.api.framing import FramedHttpProtocol
from prunepool.api.refusal import Refusal
from prunepool.errors import Overloaded

#: How long the reader of a body may take to send its error, before the connection is closed.
_ERROR_S = 1.0
#: How long a connection above the limit may take to send the request whose response is 503.
_REFUSED_S = 1.0
#: How many connections above the limit may do so at a time: this many, or this share of the limit. Others are cut.
_REFUSED_LEAST, _REFUSED_SHARE = 32, 1 / 8
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
        "refused": set(),
    }
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), limits)


class BoundedHttpProtocol(FramedHttpProtocol):
    """Refuses requests that arrive too slowly, and connections above a limit.

    A request's time runs from its first byte, or from the start of the connection, to its last byte. Between two
    requests uvicorn's keep-alive timeout applies. When the time is over while a body is read, the reader of the
    body sends the error; this class closes the connection if the client goes on sending.

    Whatever ends a connection for the server's part, the client can still read the last response: see
    :mod:`prunepool.api.closing`.
    """

    request_timeout_s: float
    max_connections: int
    count: Callable[[int, str], None]
    refused: set[BoundedHttpProtocol]
    _idle_since = 0.0
    _request_begun = False
    _receive_timer: asyncio.TimerHandle | None = None
    _receive_deadline = 0.0
    _reader_notified = False
    _refusal: Refusal | None = None
    _lingering: Lingering | None = None
    _half_closed: HalfClosed | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer: a client that sends nothing is a request that does not arrive."""
        super().connection_made(transport)
        if self.client is not None:
            # A socket for both IPv6 and IPv4 shows 10.0.0.1 as ::ffff:10.0.0.1, which no `trusted_proxies` names.
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self._idle_since = self.loop.time()
        served = len(self.connections) - len(self.refused)
        if served <= self.max_connections or self._evict_connection():
            self._start_timer(self.request_timeout_s)
            return
        if len(self.refused) < max(_REFUSED_LEAST, self.max_connections * _REFUSED_SHARE):
            self.refused.add(self)
            self._start_timer(min(self.request_timeout_s, _REFUSED_S))
        else:
            self._refuse(self._no_room())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, and tell the application that its client is gone."""
        running = self._running
        if running is not None and running.cycle is not self.cycle and not running.cycle.response_complete:
            # uvicorn tells the newest request alone, which waits for this one if the client has pipelined them.
            running.cycle.disconnected = True
            running.cycle.message_event.set()
        self.refused.discard(self)
        self._stop_timer()
        if self._lingering is not None:
            self._lingering.stop()
        if self._half_closed is not None:
            self._half_closed.stop()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for what is still to be answered; close it if there is nothing."""
        complete = self._in_head or self._ended
        if not self._answering or not complete or self._lingering is not None:
            return False
        self._half_closed = HalfClosed(self.transport, self._can_probe)
        return True

    def data_received(self, data: bytes) -> None:
        """Read requests, or discard what comes after the last one."""
        if self._in_head and self._receive_timer is None and not self._ended:
            self._start_timer(self.request_timeout_s)
        self._unset_keepalive_if_required()
        unread = self._read(data)
        if self._lingering is not None:
            self._lingering.discard(unread)

    def on_message_begin(self) -> None:
        """Begin a request, which may have arrived together with the one before it."""
        super().on_message_begin()
        self._request_begun = True
        if self._receive_timer is None:
            self._start_timer(self.request_timeout_s)
        self._arrival = Arrival(self._receive_deadline)
        set_arrival(self.scope["state"], self._arrival)

    def on_message_complete(self) -> None:
        """Stop the timer: the request has arrived."""
        super().on_message_complete()
        if self._in_head and not self._upgrade_offered:
            self._stop_timer()
            self._request_begun = False

    def on_response_complete(self) -> None:
        """Go on to the next request, or end the connection."""
        self._idle_since = self.loop.time()
        if self._running is not None and self._running.last and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self.pipeline.clear()
            if self._running.cycle.more_body:
                self._linger()
            else:
                self.transport.close()
            return
        super().on_response_complete()
        if self._answering or self.transport.is_closing():
            return
        if self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._half_closed is not None:
            self.transport.close()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _idle(self) -> bool:
        return self._in_head and not self._head_bytes and not self._answering and not self._ended

    def _can_probe(self) -> bool:
        running = self._running
        if running is None or running.response_started:
            return False
        return running.cycle.scope["http_version"] == "1.1"

    def _evict_connection(self) -> bool:
        """Close the connection that has been idle longest, or lingers; return whether there was one."""
        others = (
            other for other in self.connections - self.refused if isinstance(other, BoundedHttpProtocol)
        )
        idle = [other for other in others if other is not self and (other._idle or other._lingering)]
        if not idle:
            return False
        longest = min(idle, key=lambda other: (other._lingering is not None, other._idle_since))
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
        elif self in self.refused:
            self._refuse(self._no_room())
        elif self._in_head and (self._request_begun or self._head_bytes):
            limit = f"a request must arrive within {self.request_timeout_s:g} s"
            self._refuse(Refusal(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", limit))
        elif self._answering and not self._reader_notified:
            self._reader_notified = True
            self._start_timer(_ERROR_S)  # the deadline of `read_body` is over too, and it sends the error
        else:
            self.transport.close()

    def _unserved(self) -> Refusal | None:
        return self._no_room() if self in self.refused else None

    def _no_room(self) -> Refusal:
        detail = f"{self.max_connections} connections are open, which is the limit, and none of them is idle"
        # The next response frees a connection: 1 s is the shortest time that the header can express.
        return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, Overloaded.code, detail, retry_after_s=1)

    def _refuse(self, refusal: Refusal) -> None:
        """Send the last response of the connection, after those that are still due."""
        self._note(refusal)
        self._ended = True
        self._stop_timer()
        if self._answering:
            self._refusal = refusal
        else:
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: Refusal) -> None:
        self.transport.write(refusal.response(head_only=self.parser.get_method() == b"HEAD"))
        self._linger()

    def _linger(self) -> None:
        self._ended = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        if self._half_closed is not None:
            self.transport.close()
            return
        self.flow.resume_reading()
        self._lingering = Lingering(self.transport, self.request_timeout_s)

    def _note(self, refusal: Refusal) -> None:
        """Count and log a request that no route sees."""
        client = self.client[0] if self.client else None
        self.count(refusal.status.value, refusal.code)
        # At debug level, so that a flood of connections is no flood of log lines; the metric counts them.
        write = _log.debug if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE else _log.info
        write("request refused", client=client, status=refusal.status.value, code=refusal.code)
