"""What is in the repository of models, and loading and unloading as far as it goes.

Models are loaded when the server starts. Asking for one that is served changes nothing and is answered with
success, as clients load what they are about to use; anything else is refused. :func:`load` and :func:`unload`
are the places where more can begin.
"""

from __future__ import annotations

import orjson

from prunepool.api.oip.views import VERSION, find, views
from prunepool.engine import Engine
from prunepool.errors import InvalidParameter, RequestError
from prunepool.settings import Settings


def index(engine: Engine, settings: Settings, body: bytes) -> list[dict[str, object]]:
    """Every view and whether it can be asked; with `{"ready": true}` only those that can.

    Raises:
        InvalidParameter: the body says something else.
    """
    ready_only = _document(body).get("ready", False)
    if not isinstance(ready_only, bool):
        raise InvalidParameter("ready", ready_only, "true or false")
    return [
        {
            "name": view.name,
            "version": VERSION,
            "state": "READY" if view.info.ready else "UNAVAILABLE",
            "reason": "" if view.info.ready else "loading, or being restarted",
        }
        for view in views(engine, settings)
        if view.info.ready or not ready_only
    ]


def load(engine: Engine, settings: Settings, name: str, body: bytes) -> None:
    """See that a model is served.

    Raises:
        ModelNotFound: it is not.
        InvalidParameter: it shall be served in another way than it is.
    """
    parameters = _document(body).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidParameter("parameters", type(parameters).__name__, "a JSON object")
    for parameter in parameters:
        limit = "left out: a model is served as its model.json says"
        raise InvalidParameter(f"parameters.{parameter}"[:100], "something", limit)
    find(engine, settings, name)


def unload(engine: Engine, settings: Settings, name: str) -> None:
    """Stop serving a model.

    Raises:
        ModelNotFound: it is not served.
        RequestError: it is; models stay until the server stops.
    """
    view = find(engine, settings, name)
    raise RequestError(f"{view.name} cannot be unloaded: models stay loaded until the server stops")


def _document(body: bytes) -> dict[str, object]:
    """The JSON object in a body, which may be empty."""
    try:
        document = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise InvalidParameter("body", str(error), "empty, or valid JSON") from error
    if not isinstance(document, dict):
        raise InvalidParameter("body", type(document).__name__, "empty, or a JSON object")
    return document
