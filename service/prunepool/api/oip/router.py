"""The protocol's routes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import version as version_of
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from prunepool.api.access import check_admin
from prunepool.api.answers import json_response
from prunepool.api.connection import ClientGone, read_body
from prunepool.api.oip import infer as inference
from prunepool.api.oip import repository
from prunepool.api.oip.errors import error_response
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View, find, views
from prunepool.api.services import Services, services
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
    """A route whose errors have the protocol's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, within reach of our errors."""
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


router = APIRouter(prefix="/v2", route_class=OipRoute, include_in_schema=False)


def mount(app: FastAPI) -> None:
    """Serve the protocol, with counts of its own."""
    app.state.oip_statistics = Statistics()
    app.include_router(router)


def _statistics(request: Request) -> Statistics:
    found = request.app.state.oip_statistics
    assert isinstance(found, Statistics)
    return found


def _view(request: Request, name: str, version: str | None) -> View:
    here = services(request)
    return find(here.engine, here.settings, name, version)


async def _question(request: Request) -> bytes:
    """The body of a request to the repository."""
    here = services(request)
    with here.room.place() as place:
        return await read_body(request, here.settings.max_body_bytes, place)


@router.get("")
async def server() -> Response:
    """Who answers, and what it can do beyond the protocol's core."""
    return json_response({"name": "prunepool", "version": version_of("prunepool"), "extensions": EXTENSIONS})


@router.get("/health/live")
async def live() -> Response:
    """The process answers."""
    return json_response({"live": True})


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Every model can be asked."""
    can = takes_requests(services(request))
    return json_response({"ready": can}, 200 if can else 503)


def takes_requests(here: Services) -> bool:
    """Whether every model can be asked."""
    return here.engine.readiness().ready and not here.drain.started


@router.get("/models")
async def models(request: Request) -> Response:
    """The names of all views."""
    here = services(request)
    return json_response({"models": [view.name for view in views(here.engine, here.settings)]})


@router.get("/models/stats")
async def all_statistics(request: Request) -> Response:
    """What became of the requests of every view."""
    here, counts = services(request), _statistics(request)
    listed = [counts.json(view.name) for view in views(here.engine, here.settings)]
    return json_response({"model_stats": listed})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def metadata(request: Request, name: str, version: str | None = None) -> Response:
    """The inputs and outputs of a view."""
    return json_response(_view(request, name, version).metadata())


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Whether a view can be asked."""
    can = _view(request, name, version).info.ready and not services(request).drain.started
    return json_response({"name": name, "ready": can}, 200 if can else 503)


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
async def config(request: Request, name: str, version: str | None = None) -> Response:
    """A view as Triton would configure it."""
    wait_s = services(request).settings.max_wait_ms / 1000
    return json_response(_view(request, name, version).config(wait_s))


@router.get("/models/{name}/stats")
@router.get("/models/{name}/versions/{version}/stats")
async def statistics(request: Request, name: str, version: str | None = None) -> Response:
    """What became of the requests of a view."""
    view = _view(request, name, version)
    return json_response({"model_stats": [_statistics(request).json(view.name)]})


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str, version: str | None = None) -> Response:
    """Answer an inference request."""
    return await inference.infer(request, _statistics(request), name, version)


@router.post("/repository/index")
async def index(request: Request) -> Response:
    """Every view and its state."""
    here = services(request)
    return json_response(await repository.index(here, await _question(request)))


@router.post("/repository/models/{name}/load")
async def load(request: Request, name: str) -> Response:
    """See that a model is served as it is now."""
    here = services(request)
    body = await _question(request)
    if here.control is not None:
        check_admin(request)
    await repository.load(here, name, body)
    return json_response({"name": name, "load": True})


@router.post("/repository/models/{name}/unload")
async def unload(request: Request, name: str) -> Response:
    """Stop serving a model."""
    here = services(request)
    await _question(request)
    if here.control is not None:
        check_admin(request)
    await repository.unload(here, name)
    return json_response({"name": name, "unload": True})


@router.api_route("/{path:path}", methods=_EVERY_METHOD)
async def nothing(request: Request, path: str) -> Response:
    """What is not served still has the protocol's shape of an error."""
    raise ModelNotFound(f"nothing is served at {request.method} /v2/{path[:200]}")
