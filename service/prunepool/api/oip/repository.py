"""The model repository extension: lists, loads and unloads models.

Clients load a model before they use it, so loading a model that is served and unchanged always succeeds. Everything
else needs a server with model control.
"""

from __future__ import annotations

import asyncio

from prunepool.api.context import AppContext
from prunepool.api.json_bodies import brackets_and_commas, parse_json
from prunepool.api.oip.views import VERSION, find, views
from prunepool.errors import Forbidden, InvalidParameter
from prunepool.model_names import ENCODED_SUFFIX

#: Repository requests have a handful of values.
_LIMIT = brackets_and_commas(1000)


async def index(context: AppContext, body: bytes) -> list[dict[str, object]]:
    """List the views and their states; with `{"ready": true}` in the body, only those that are ready.

    Models that could not be loaded are listed too, and with model control those that are not.

    Raises:
        InvalidParameter: the body holds something else.
    """
    ready_only = _document(body).get("ready")
    if not isinstance(ready_only, bool | None):
        raise InvalidParameter("ready", ready_only, "true or false")
    listed: list[dict[str, object]] = [
        {
            "name": view.name,
            "version": VERSION,
            "state": "READY" if view.info.ready else "UNAVAILABLE",
            "reason": "" if view.info.ready else "loading, or being restarted",
        }
        for view in views(context.service, context.settings)
        if view.info.ready or not ready_only
    ]
    if ready_only:
        return listed
    absent: dict[str, str] = {}
    if context.control is not None:
        absent = dict.fromkeys(await asyncio.to_thread(context.control.loadable), "unloaded")
    absent |= context.service.readiness().failures
    for info in context.service.models():
        absent.pop(info.name, None)
    listed += [
        {"name": name, "version": VERSION, "state": "UNAVAILABLE", "reason": why}
        for name, why in absent.items()
    ]
    return listed


async def load(context: AppContext, name: str, body: bytes) -> None:
    """Load a model, or reload it if its model.json has changed.

    Args:
        context: context of the app.
        name: name of the model or of one of its views.
        body: body of the request.

    Raises:
        ModelNotFound: there is no such model, or it is not loaded and callers cannot load it.
        InvalidParameter: the request has parameters.
        PrunepoolError: the model cannot be loaded.
    """
    parameters = _document(body).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidParameter("parameters", type(parameters).__name__, "a JSON object")
    for parameter in (name for name, value in parameters.items() if value is not None):
        limit = "left out: loading takes no parameters; model.json configures the model"
        raise InvalidParameter(f"parameters.{parameter}"[:100], "something", limit)
    if context.control is None:
        find(context.service, context.settings, name)
        return
    loadable = await asyncio.to_thread(context.control.loadable)
    model = name.removesuffix(ENCODED_SUFFIX)
    await context.control.load(model if model in loadable else name)


async def unload(context: AppContext, name: str) -> None:
    """Unload a model; return when all requests that it had accepted are answered.

    Raises:
        ModelNotFound: the model is not loaded.
        Forbidden: the server runs without model control.
        RequestError: the model is the default model.
    """
    view = find(context.service, context.settings, name)
    if context.control is None:
        raise Forbidden(f"{view.name} cannot be unloaded: this server runs with --model-control none")
    await context.control.unload(view.info.name)


def _document(body: bytes) -> dict[str, object]:
    """Parse the JSON object in a body; an empty body is an empty object."""
    document = parse_json(body, _LIMIT) if body.strip() else {}
    if not isinstance(document, dict):
        raise InvalidParameter("body", type(document).__name__, "empty, or a JSON object")
    return document
