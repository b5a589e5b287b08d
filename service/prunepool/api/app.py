"""Puts the routes, the error shapes and the engine together into one ASGI application."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from prunepool.api import classify, describe, health, page
from prunepool.api.drain import Drain
from prunepool.api.middleware import RequestContext
from prunepool.api.problems import handlers
from prunepool.api.services import Services
from prunepool.engine import Engine
from prunepool.metrics import Metrics
from prunepool.settings import Settings

_DESCRIPTION = "Vision Transformer inference where every request chooses how many tokens to spend."


def create_app(engine: Engine, settings: Settings, metrics: Metrics, drain: Drain | None = None) -> FastAPI:
    """The service as an ASGI application; its lifespan starts and closes the engine.

    Args:
        engine: what classifies.
        settings: limits of requests.
        metrics: what `/metrics` shows.
        drain: shared with whoever stops the server; one of its own if None.
    """
    made = drain or Drain(settings.drain_timeout_s, time.monotonic)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        try:
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
    )
    app.state.services = Services(engine, settings, metrics, made)
    app.openapi = lambda: describe.openapi(app)  # type: ignore[method-assign]
    app.add_middleware(RequestContext)
    for part in (classify, health, page):
        app.include_router(part.router)
    page.mount_static(app)
    return app
