"""Gives each request an id, a log line and a count, and turns unexpected errors into responses."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunepool.api.connection import ClientGone
from prunepool.api.prefix import route_path
from prunepool.api.problems import unexpected_response
from prunepool.api.request_ids import new_id, request_id
from prunepool.errors import PrunepoolError
from prunepool.logs import request_fields
from prunepool.metrics import Metrics

_log = structlog.stdlib.get_logger("prunepool.http")

#: Polled by machines every few seconds, so logged at debug level.
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
#: The status that nginx logs for a client that disconnected; no client receives it.
CLIENT_GONE = 499
#: The label of requests that reach no route: unknown paths, static files, requests without a valid key.
NO_ROUTE = "none"


class RequestContext:
    """Gives each request its id, logs and counts it, and turns an unexpected error into a problem document.

    Args:
        app: the ASGI application behind it.
        metrics: counts the requests.
        clock: monotonic clock, in seconds.
        new_id: makes an id for a request that brings none.
        log_fields: returns further fields for every log line of the request, such as the trace id.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
        new_id: Callable[[], str] = new_id,
        log_fields: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id
        self._log_fields = log_fields

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = self._clock()
        identity = request_id(Headers(scope=scope), self._new_id)
        status: int | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = identity
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=identity, **self._log_fields()):
            try:
                await self._app(scope, receive, send_with_id)
            except (ClientGone, ClientDisconnect):
                pass  # no client is left to receive a response
            except Exception:
                _log.exception("unexpected error")
                request_fields(scope)["code"] = PrunepoolError.code
                if status is not None:
                    raise
                await unexpected_response()(scope, receive, send_with_id)
            finally:
                ended = CLIENT_GONE if status is None else status
                self._count(scope, ended)
                self._write_line(scope, ended, self._clock() - start)

    def _count(self, scope: Scope, status: int) -> None:
        code = str(request_fields(scope).get("code", "ok" if status < 400 else "none"))
        self._metrics.http_requests.labels(route_of(scope), str(status), code).inc()

    def _write_line(self, scope: Scope, status: int, seconds: float) -> None:
        path = quote(route_path(scope))
        write = _log.debug if path in QUIET else _log.info
        write(
            "request",
            method=scope["method"],
            path=path,
            client=_client(scope),
            status=status,
            ms=round(seconds * 1000, 2),
            **request_fields(scope),
        )


def route_of(scope: Scope) -> str:
    """Return the route template of a request; its path would make an unbounded number of labels."""
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return path if isinstance(path, str) else NO_ROUTE


def _client(scope: Scope) -> str | None:
    """Return the client's address, quoted: behind a trusted proxy it is whatever the proxy passed on."""
    client = scope.get("client")
    return quote(client[0], safe=":.[]%") if client else None
