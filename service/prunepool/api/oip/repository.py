"""What is in the repository of models, and loading and unloading them.

Asking for a model that is served, and has not changed, is answered with success: clients load what they are
about to use. Anything more needs a server that lets callers control its models.
"""

from __future__ import annotations

import asyncio

import orjson

from prunepool.api.oip.views import ENCODED_SUFFIX, VERSION, find, views
from prunepool.api.services import Services
from prunepool.errors import Forbidden, InvalidParameter


async def index(here: Services, body: bytes) -> list[dict[str, object]]:
    """Every view and whether it can be asked; with `{"ready": true}` only those that can.

    Where models can be loaded, those that are not are listed too.

    Raises:
        InvalidParameter: the body says something else.
    """
    ready_only = _document(body).get("ready", False)
    if not isinstance(ready_only, bool):
        raise InvalidParameter("ready", ready_only, "true or false")
    listed: list[dict[str, object]] = [
        {
            "name": view.name,
            "version": VERSION,
            "state": "READY" if view.info.ready else "UNAVAILABLE",
            "reason": "" if view.info.ready else "loading, or being restarted",
        }
        for view in views(here.engine, here.settings)
        if view.info.ready or not ready_only
    ]
    if here.control is not None and not ready_only:
        served = {info.name for info in here.engine.models()}
        listed += [
            {"name": name, "version": VERSION, "state": "UNAVAILABLE", "reason": "unloaded"}
            for name in await asyncio.to_thread(here.control.loadable)
            if name not in served
        ]
    return listed


async def load(here: Services, name: str, body: bytes) -> None:
    """See that a model is served as its model.json says now.

    Args:
        here: the parts behind the route.
        name: of the model, or of one of its views.
        body: what was sent.

    Raises:
        ModelNotFound: it is not, and cannot be loaded.
        InvalidParameter: it shall be served in another way.
        PrunepoolError: why it cannot be served.
    """
    parameters = _document(body).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidParameter("parameters", type(parameters).__name__, "a JSON object")
    for parameter in parameters:
        limit = "left out: a model is served as its model.json says"
        raise InvalidParameter(f"parameters.{parameter}"[:100], "something", limit)
    if here.control is None:
        find(here.engine, here.settings, name)
        return
    loadable = await asyncio.to_thread(here.control.loadable)
    await here.control.load(name if name in loadable else name.removesuffix(ENCODED_SUFFIX))


async def unload(here: Services, name: str) -> None:
    """Stop serving a model; returns when all that it had accepted is answered.

    Raises:
        ModelNotFound: it is not served.
        Forbidden: the server lets nobody control its models.
        RequestError: it is the default model.
    """
    view = find(here.engine, here.settings, name)
    if here.control is None:
        raise Forbidden(f"{view.name} cannot be unloaded: this server runs with --model-control none")
    await here.control.unload(view.info.name)


def _document(body: bytes) -> dict[str, object]:
    """The JSON object in a body, which may be empty."""
    try:
        document = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidParameter("body", str(error), "empty, or valid JSON") from error
    if not isinstance(document, dict):
        raise InvalidParameter("body", type(document).__name__, "empty, or a JSON object")
    return document
