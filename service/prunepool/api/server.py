"""The HTTP server of one process: its socket, its signals, and leaving without losing an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from prunepool.api.drain import Drain
from prunepool.api.middleware import NO_ROUTE
from prunepool.api.protocol import bounded_protocol
from prunepool.serving.types import Engine
from prunepool.settings import Settings

_log = structlog.stdlib.get_logger("prunepool.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: For answers that are written but not yet taken by their clients.
_LAST_WRITES_S = 5


class CannotListen(OSError):
    """The address cannot be listened on; the message says why, in one line."""


class EngineLost(RuntimeError):
    """The engine does not recover in this process; the message says why, in one line."""


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket on the address, not listening yet: a taken port shows before a model is loaded.

    Args:
        host: name or address, IPv4 or IPv6.
        port: 0 takes a free one.
        shared: whether further sockets may be bound to the same port, each to get its share of connections.

    Raises:
        CannotListen: the port is taken or not allowed, or there is no such host.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}: {error.strerror}") from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from error
    made.setblocking(False)
    return made


def _give_up_unread_answers(bound: socket.socket, seconds: float) -> None:
    """End connections whose clients do not take their answers; those that are accepted inherit it."""
    if sys.platform == "linux":
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def url_of(bound: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves until a signal, then drains.

    The first SIGTERM or SIGINT begins the drain: the socket goes on listening, so that new requests are told
    `draining` and probes see it, until every accepted request is answered. A second one ends the process.

    Args:
        app: what to serve; its lifespan runs around the serving.
        engine: told to refuse when the drain begins.
        drain: shared with the app.
        settings: how long to wait for clients, and which proxies to believe.
        on_hangup: called at each SIGHUP; without it the signal ends the process, as it does by itself.
        signals: whether signals are this process's to act upon; otherwise there is only :meth:`stop`.
    """

    def __init__(
        self,
        app: FastAPI,
        engine: Engine,
        drain: Drain,
        settings: Settings,
        on_hangup: Callable[[], None] | None = None,
        signals: bool = True,
    ) -> None:
        requests = app.state.services.metrics.http_requests

        def count(status: int, code: str) -> None:
            requests.labels(NO_ROUTE, str(status), code).inc()

        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(settings.request_timeout_s, settings.max_connections, count),
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=list(settings.trusted_proxies or ()),
                timeout_keep_alive=settings.keep_alive_timeout_s,  # type: ignore[arg-type] # seconds, of any kind
                timeout_graceful_shutdown=_LAST_WRITES_S,
            )
        )
        self._fastapi = app
        self._engine = engine
        self._drain = drain
        self._request_timeout_s = settings.request_timeout_s
        self._on_hangup = on_hangup
        self._signals = signals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._stopping = False
        self._lost: str | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self.unanswered = 0

    async def serve_until_signal(self, bound: socket.socket, on_ready: Callable[[], None]) -> int:
        """Start the engine, serve, drain.

        Args:
            bound: from :func:`bind`; closed at the end.
            on_ready: called when requests can be served.

        Returns:
            How many accepted requests were not answered before the time of the drain was over.

        Raises:
            PrunepoolError: the engine cannot start.
            EngineLost: the engine was given up on.
        """
        self._loop = asyncio.get_running_loop()
        self._on_ready = on_ready
        _give_up_unread_answers(bound, self._request_timeout_s)
        async with self._fastapi.router.lifespan_context(self._fastapi):
            await self.serve(sockets=[bound])
        if self._lost is not None:
            raise EngineLost(f"the engine does not recover in this process: {self._lost}")
        return self.unanswered

    def give_up(self, why: str) -> None:
        """Begin the drain because the engine does not recover; on the event loop.

        What other models can still answer is answered; then :meth:`serve_until_signal` raises.
        """
        if self._lost is None:
            self._lost = why
            self._drain.broken = True
            _log.error("the engine does not recover in this process", why=why)
            self._begin_to_leave("engine lost")

    def stop(self, reason: str) -> None:
        """Begin the drain; from any thread, once the server serves."""
        assert self._loop is not None, "the server does not serve yet"
        self._stopping = True
        self._loop.call_soon_threadsafe(self._begin_to_leave, reason)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; the engine is ready by now."""
        try:
            await super().startup(sockets)
        except OSError as error:  # another server bound the port too, and was first to listen
            raise CannotListen(f"cannot listen: {error.strerror}") from error
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end at the second."""
        name = signal.Signals(sig).name
        if self._stopping:
            sys.stderr.write(f"prunepool: {name} again: ending now\n")
            sys.stderr.flush()
            os._exit(128 + sig)
        self.stop(name)

    def hang_up(self) -> None:
        """Do what SIGHUP does; on the event loop."""
        if self._on_hangup is not None:
            self._on_hangup()

    def _hang_up(self, sig: int, frame: FrameType | None) -> None:
        assert self._loop is not None
        assert self._on_hangup is not None
        self._loop.call_soon_threadsafe(self._on_hangup)

    def _begin_to_leave(self, reason: str) -> None:
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._leave(reason))

    async def _leave(self, reason: str) -> None:
        self._engine.begin_drain()
        self._drain.begin()
        _log.info("draining", reason=reason, under_way=self._drain.under_way, at_most_s=self._drain.left_s)
        if not await self._drain.finished():
            self.unanswered = self._drain.under_way
            self._drain.abandon()
        self.config.timeout_graceful_shutdown = max(1, min(_LAST_WRITES_S, int(self._drain.left_s)))
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Our own handlers while serving; what they caught is dealt with, so nothing is raised again."""
        if not self._signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        if self._on_hangup is not None:
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
