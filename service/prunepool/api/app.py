"""Puts the routes, the error shapes and the engine together into one ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware

from prunepool.access import Keyring
from prunepool.api import access, classify, describe, health, options, page
from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.api.drain import Drain
from prunepool.api.middleware import QUIET, RequestContext
from prunepool.api.oip import rpc
from prunepool.api.oip.router import mount as mount_oip
from prunepool.api.problems import handlers
from prunepool.api.services import Services
from prunepool.metrics import Metrics
from prunepool.serving.types import Engine, ModelControl
from prunepool.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

_DESCRIPTION = "Vision Transformer inference where every request chooses how many tokens to spend."
#: What a page from elsewhere may send beyond what every page may, and what it may read of the answer.
_HEADERS_IN = ("Authorization", access.HEADER, "Content-Type", options.HEADER, "X-Request-ID", "traceparent")
_HEADERS_OUT = ("X-Request-ID", "Retry-After")


@dataclass(frozen=True, slots=True)
class Tracing:
    """What is needed to trace requests.

    Attributes:
        provider: makes their spans.
        log_fields: what ties a log line to the span that it is written in.
        traced: an engine that adds the spans of images to those of requests.
    """

    provider: TracerProvider
    log_fields: Callable[[], dict[str, str]]
    traced: Callable[[Engine], Engine]


def create_app(
    engine: Engine,
    settings: Settings,
    metrics: Metrics,
    drain: Drain | None = None,
    *,
    keyring: Keyring | None = None,
    tracing: Tracing | None = None,
    control: ModelControl | None = None,
) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and closes the engine.

    Args:
        engine: what classifies.
        settings: limits of requests.
        metrics: what `/metrics` shows.
        drain: shared with whoever stops the server; one of its own if None.
        keyring: who may ask; everybody if None.
        tracing: where the spans of requests go; nothing is traced if None.
        control: lets callers load and unload models; none may if None.
    """
    made = drain or Drain(settings.drain_timeout_s, time.monotonic)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        try:
            async with rpc.serving(app.state.services, app.state.oip_statistics, keyring):
                yield
        finally:
            await engine.close(made.left_s)

    app = FastAPI(
        title="prunepool",
        version=version("prunepool"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        exception_handlers=handlers(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry=_telemetry(tracing),
    )
    room = BodyMemoryBudget(settings.max_buffered_bytes, time.monotonic)
    metrics.ask(metrics.body_bytes, lambda: room.held)
    app.state.services = Services(engine, settings, metrics, made, room, control)
    needs_key = access.needs_key(settings) if keyring is not None else lambda _: False
    app.openapi = lambda: describe.openapi(app, needs_key)  # type: ignore[method-assign]
    # The last that is added is the first to see a request.
    if keyring is not None:
        app.add_middleware(access.Access, keyring=keyring, needs_key=needs_key)
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
    """What FastAPI shall record: the spans of requests, and nothing that was not asked for."""
    if tracing is None:
        return {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    return {
        "tracer_provider": tracing.provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": lambda scope: scope.get("path") in QUIET,
    }
