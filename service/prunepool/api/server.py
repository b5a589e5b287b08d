"""The HTTP server of one process: its sockets, its signals and its graceful shutdown."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from prunepool.api.drain import Drain
from prunepool.api.listening import make_ready
from prunepool.api.middleware import NO_ROUTE
from prunepool.api.prefix import ForwardedPrefix
from prunepool.api.protocol import bounded_protocol
from prunepool.logs import exit_now
from prunepool.serving.types import Service
from prunepool.settings import Settings

_log = structlog.stdlib.get_logger("prunepool.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: How long clients may take to read their responses after the drain.
_FLUSH_TIMEOUT_S = 5


class EngineLost(RuntimeError):
    """The engine does not recover in this process; the message says why, in one line."""


def _set_user_timeout(bound: socket.socket, seconds: float) -> None:
    """Close connections whose clients do not read their responses; accepted sockets inherit the option."""
    if sys.platform == "linux":
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))


def behind_proxies(app: FastAPI, settings: Settings) -> ASGIApp:
    """Let the headers of trusted proxies say whom they forward for, and from which path."""
    made: Any = app  # uvicorn's types of an application are its own
    if settings.trusted_proxies:
        made = ProxyHeadersMiddleware(made, list(settings.trusted_proxies))
    if settings.trusted_proxies or settings.root_path:
        made = ForwardedPrefix(made, settings)
    return cast("ASGIApp", made)


class Server(uvicorn.Server):
    """Serves until a signal, then drains.

    The first SIGTERM or SIGINT begins the drain. Until every accepted request is answered, the socket still
    accepts connections, so that new requests get `draining` and probes see it. A second signal ends the process.

    Args:
        app: the application to serve; its lifespan surrounds the serving.
        service: begins to drain together with the server.
        drain: shared with the app.
        settings: timeouts of clients, and trusted proxies.
        on_hangup: called at each SIGHUP; without it, the signal ends the process, which is its default.
        signals: whether this process handles signals itself; if not, call :meth:`stop`.
    """

    def __init__(
        self,
        app: FastAPI,
        service: Service,
        drain: Drain,
        settings: Settings,
        on_hangup: Callable[[], None] | None = None,
        signals: bool = True,
    ) -> None:
        requests = app.state.context.metrics.http_requests

        def count(status: int, code: str) -> None:
            requests.labels(NO_ROUTE, str(status), code).inc()

        super().__init__(
            uvicorn.Config(
                behind_proxies(app, settings),
                http=bounded_protocol(settings.request_timeout_s, settings.max_connections, count),
                ws="none",
                loop="uvloop",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=settings.keep_alive_timeout_s,  # type: ignore[arg-type] # seconds, of any kind
                timeout_graceful_shutdown=_FLUSH_TIMEOUT_S,
            )
        )
        self._fastapi = app
        self._engine = service
        self._drain = drain
        self._request_timeout_s = settings.request_timeout_s
        self._on_hangup = on_hangup
        self._signals = signals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._stopping = False
        self._lost: str | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self.unanswered = 0

    async def serve_until_signal(self, sockets: Sequence[socket.socket], on_ready: Callable[[], None]) -> int:
        """Start the engine, serve, drain.

        Args:
            sockets: of a :class:`Claim`; closed at the end.
            on_ready: called once requests can be served.

        Returns:
            The number of accepted requests that were not answered before the drain timed out.

        Raises:
            PrunepoolError: the engine cannot start.
            EngineLost: the engine was given up on.
        """
        self._loop = asyncio.get_running_loop()
        self._on_ready = on_ready
        for bound in sockets:
            _set_user_timeout(bound, self._request_timeout_s)
        async with self._fastapi.router.lifespan_context(self._fastapi):
            await self.serve(sockets=list(sockets))
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
            self._begin_drain("engine lost")

    def stop(self, reason: str) -> None:
        """Begin the drain. Call it from any thread, once the server serves."""
        assert self._loop is not None, "the server does not serve yet"
        self._stopping = True
        self._loop.call_soon_threadsafe(self._begin_drain, reason)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. The engine is ready by now."""
        for bound in sockets or ():
            make_ready(bound)
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, exit at the second."""
        name = signal.Signals(sig).name
        if self._stopping:
            sys.stderr.write(f"prunepool: {name} again: ending now\n")
            sys.stderr.flush()
            exit_now(128 + sig)
        self.stop(name)

    def handle_hangup(self) -> None:
        """Act as at SIGHUP. Call it from the event loop."""
        if self._on_hangup is not None:
            self._on_hangup()

    def _on_sighup(self, sig: int, frame: FrameType | None) -> None:
        assert self._loop is not None
        assert self._on_hangup is not None
        self._loop.call_soon_threadsafe(self._on_hangup)

    def _begin_drain(self, reason: str) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain_and_stop(reason))

    async def _drain_and_stop(self, reason: str) -> None:
        self._engine.begin_drain()
        self._drain.begin()
        _log.info(
            "draining", reason=reason, in_flight=self._drain.in_flight, at_most_s=self._drain.remaining_s
        )
        if not await self._drain.finished():
            self.unanswered = self._drain.in_flight
            self._drain.abandon()
        self.config.timeout_graceful_shutdown = max(1, int(min(_FLUSH_TIMEOUT_S, self._drain.remaining_s)))
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install our signal handlers while serving. Unlike uvicorn, raise no signal again afterwards."""
        if not self._signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        if self._on_hangup is not None:
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_sighup)
        # One that came while the model was loaded waits for this.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
