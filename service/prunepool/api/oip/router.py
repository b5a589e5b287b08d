"""The routes of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import version as version_of
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from prunepool.api.access import check_admin
from prunepool.api.connection import ClientGone, read_body
from prunepool.api.context import AppContext, context_of
from prunepool.api.json_documents import json_response
from prunepool.api.oip import infer as infer_endpoint
from prunepool.api.oip import repository
from prunepool.api.oip.errors import error_response
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View, find, views
from prunepool.api.routes import Router
from prunepool.errors import ModelNotFound, PrunepoolError
from prunepool.logs import request_fields

_log = structlog.stdlib.get_logger("prunepool.http")
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
)
_EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class OipRoute(APIRoute):
    """A route whose errors have the form of the protocol."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler, to turn errors into responses."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except PrunepoolError as caught:
                error = caught
            except (ClientGone, ClientDisconnect):
                raise
            except Exception:
                _log.exception("unexpected error")
                error = PrunepoolError("the server failed unexpectedly; its log says more")
            request_fields(request.scope)["code"] = error.code
            return error_response(error)

        return answer


router = Router(prefix="/v2", route_class=OipRoute, include_in_schema=False)


def mount(app: FastAPI) -> None:
    """Add the routes to the app, with statistics of their own."""
    app.state.oip_statistics = Statistics()
    app.include_router(router)


def _statistics(request: Request) -> Statistics:
    found = request.app.state.oip_statistics
    assert isinstance(found, Statistics)
    return found


def _view(request: Request, name: str, version: str | None) -> View:
    context = context_of(request)
    return find(context.service, context.settings, name, version)


async def _read(request: Request) -> bytes:
    """Read the body of a repository request."""
    context = context_of(request)
    with context.body_memory.reserve() as reservation:
        return await read_body(request, context.settings.max_body_bytes, reservation)


@router.get("")
async def server() -> Response:
    """Return the server's name, version and protocol extensions."""
    return json_response({"name": "prunepool", "version": version_of("prunepool"), "extensions": EXTENSIONS})


@router.get("/health/live")
async def live() -> Response:
    """Answer that the process is alive."""
    return json_response({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Answer whether every model accepts requests."""
    is_ready = accepts_requests(context_of(request))
    return json_response({"ready": is_ready}, 200 if is_ready else 503)


def accepts_requests(context: AppContext) -> bool:
    """Return whether every model accepts requests."""
    return context.service.readiness().ready and not context.drain.started


@router.get("/models")
async def models(request: Request) -> Response:
    """List the names of all views."""
    context = context_of(request)
    return json_response({"models": [view.name for view in views(context.service, context.settings)]})


@router.get("/models/stats")
async def all_statistics(request: Request) -> Response:
    """Return the statistics of every view."""
    context, counts = context_of(request), _statistics(request)
    listed = [counts.json(view.name) for view in views(context.service, context.settings)]
    return json_response({"model_stats": listed})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str | None = None) -> Response:
    """Describe the inputs and outputs of a view."""
    return json_response(_view(request, name, version).metadata())


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Answer whether a view accepts requests."""
    is_ready = _view(request, name, version).info.ready and not context_of(request).drain.started
    return json_response({"name": name, "ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def config(request: Request, name: str, version: str | None = None) -> Response:
    """Return a view as a Triton model configuration."""
    wait_s = context_of(request).settings.max_wait_ms / 1000
    return json_response(_view(request, name, version).config(wait_s))


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def statistics(request: Request, name: str, version: str | None = None) -> Response:
    """Return the statistics of a view."""
    view = _view(request, name, version)
    return json_response({"model_stats": [_statistics(request).json(view.name)]})


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Handle an inference request."""
    return await infer_endpoint.infer(request, _statistics(request), name, version)


@router.post("/repository/index")
async def index(request: Request) -> Response:
    """List every view and its state."""
    context = context_of(request)
    return json_response(await repository.index(context, await _read(request)))


@router.post("/repository/models/{name}/load")
async def load(request: Request, name: str) -> Response:
    """Load a model, or reload it if its model.json has changed."""
    context = context_of(request)
    body = await _read(request)
    if context.control is not None:
        check_admin(request)
    await repository.load(context, name, body)
    return json_response({"name": name, "load": True})


@router.post("/repository/models/{name}/unload")
async def unload(request: Request, name: str) -> Response:
    """Unload a model."""
    context = context_of(request)
    await _read(request)
    if context.control is not None:
        check_admin(request)
    await repository.unload(context, name)
    return json_response({"name": name, "unload": True})


@router.api_route("/{path:path}", methods=_EVERY_METHOD)
async def unknown(request: Request, path: str) -> Response:
    """Answer unknown paths with an error in the form of the protocol."""
    raise ModelNotFound(f"nothing is served at {request.method} /v2/{path[:200]}")
