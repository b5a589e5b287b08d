"""Builds the ASGI application from the routes, the middleware, the error handlers and an engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import orjson
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware

from prunepool.access import Keyring
from prunepool.api import access, classify, describe, health, options, page
from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.api.context import AppContext
from prunepool.api.drain import Drain
from prunepool.api.exposition import Exposition
from prunepool.api.middleware import QUIET, RequestContext
from prunepool.api.oip import rpc
from prunepool.api.oip.router import mount as mount_oip
from prunepool.api.prefix import route_path
from prunepool.api.problems import handlers
from prunepool.metrics import Metrics
from prunepool.serving.types import ModelControl, Service
from prunepool.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_DESCRIPTION = "Vision Transformer inference where every request chooses how many tokens to spend."
#: Headers that pages of other origins (CORS) may send, and those of the response that they may read.
_HEADERS_IN = ("Authorization", access.HEADER, "Content-Type", options.HEADER, "X-Request-ID", "traceparent")
_HEADERS_OUT = ("X-Request-ID", "Retry-After")


@dataclass(frozen=True, slots=True)
class Tracing:
    """How to trace requests.

    Attributes:
        provider: makes the spans of requests.
        log_fields: returns the ids of the current trace and span, for log lines.
        traced: wraps an engine so that it adds the spans of images.
    """

    provider: TracerProvider
    log_fields: Callable[[], dict[str, str]]
    traced: Callable[[Service], Service]


def create_app(
    service: Service,
    settings: Settings,
    metrics: Metrics,
    drain: Drain | None = None,
    *,
    keyring: Keyring | None = None,
    tracing: Tracing | None = None,
    control: ModelControl | None = None,
) -> FastAPI:
    """Build the service as an ASGI application; its lifespan starts and closes the engine.

    Args:
        service: runs inference.
        settings: limits of requests.
        metrics: the series behind `/metrics`.
        drain: shared with the server, which begins the drain; made here if None.
        keyring: the valid API keys; None serves every caller.
        tracing: traces requests; None traces nothing.
        control: loads and unloads models for callers; None refuses that.
    """
    shared_drain = drain or Drain(settings.drain_timeout_s, time.monotonic)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            async with rpc.serving(app.state.context, app.state.oip_statistics, keyring):
                yield
        finally:
            await service.close(shared_drain.remaining_s)

    app = FastAPI(
        title="prunepool",
        version=version("prunepool"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        exception_handlers=handlers(),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry=_telemetry(tracing),
    )
    body_memory = BodyMemoryBudget(settings.max_buffered_bytes, time.monotonic)
    metrics.bind(metrics.body_bytes, lambda: body_memory.held)
    app.state.context = AppContext(service, settings, metrics, shared_drain, body_memory, control)
    needs_key = access.needs_key(settings) if keyring is not None else lambda _: False
    app.openapi = lambda: describe.openapi(app, needs_key)  # type: ignore[method-assign]
    app.state.exposition = Exposition(metrics)
    app.state.openapi_json = cache(lambda: orjson.dumps(app.openapi()))
    # The middleware added last sees a request first.
    if keyring is not None:
        app.add_middleware(access.ApiKeyMiddleware, keyring=keyring, needs_key=needs_key)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=_HEADERS_IN,
            expose_headers=_HEADERS_OUT,
        )
    log_fields = dict if tracing is None else tracing.log_fields
    app.add_middleware(RequestContext, metrics=metrics, log_fields=log_fields)
    for part in (classify, health, page):
        app.include_router(part.router)
    mount_oip(app)
    page.mount_static(app)
    return app


def _telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """Configure FastAPI's telemetry: the spans of requests if tracing is on, and nothing else."""
    if tracing is None:
        return {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    return {
        "tracer_provider": tracing.provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: route_path(scope) in QUIET,
    }
