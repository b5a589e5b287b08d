"""The parts of the OpenAPI document that FastAPI cannot derive from the routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from prunepool import errors
from prunepool.api import access, examples, problems, schemas
from prunepool.api.options import HEADER

CLASSIFY = """
Send **an image** as the body (`image/*` or `application/octet-stream`), **a form** with one or more `file`
parts, or **JSON** with `image` or `images` (base64 or data URLs). URLs are not fetched.

Options go into the query, or beside the images as form fields or JSON keys of the same names. An option given
twice must have the same value. An unknown option is refused by name. `null` and blank fields are as left out.

The response to one image is its classification, or an error. The response to several (`images`, or more than one
`file`) is a list of `results` in order, with an error in place of each image that could not be classified.
"""

_SHARE = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
_RATIO = {"anyOf": [_SHARE, {"type": "string", "const": "auto"}]}
#: A header is always text.
_RATIO_TEXT = {"type": "string", "pattern": r"^(auto|[0-9]*\.?[0-9]+)$"}
_FILE = {"type": "string", "format": "binary"}

#: name, schema, example, description.
_OPTIONS: tuple[tuple[str, dict[str, Any], Any, str], ...] = (
    (
        "reduction_ratio",
        _RATIO,
        0.755,
        "Share of patch tokens to remove: 0 to the model's limit, or `auto`; the server's setting if unset.",
    ),
    (
        "max_reduction_ratio",
        _SHARE,
        0.8,
        "With `auto`, the largest ratio that may be applied; a number in `reduction_ratio` must not exceed it.",
    ),
    (
        "max_accuracy_drop",
        {"type": "number", "minimum": 0},
        None,
        "Points of accuracy that may be lost; selects the fastest plan in the model's profile that loses no more.",
    ),
    ("top_k", {"type": "integer", "minimum": 1}, 5, "How many predictions; 5 if unset."),
    (
        "deadline_ms",
        {"type": "number", "exclusiveMinimum": 0},
        1000,
        "Milliseconds after which the response is of no use: the request fails instead.",
    ),
    (
        "model",
        {"type": "string", "minLength": 1},
        None,
        "Name of a served model; the default model if unset.",
    ),
    (
        "explain",
        {"type": "boolean"},
        False,
        "Add `token_map`: which patches were pruned or pooled, and where.",
    ),
)


def _parameter(where: str, name: str, schema: dict[str, Any], example: Any, text: str) -> dict[str, Any]:
    made = {"name": name, "in": where, "required": False, "schema": schema, "description": text}
    return made if example is None else {**made, "example": example}


def _form_schema() -> dict[str, Any]:
    fields = {name: {**schema, "description": text} for name, schema, _, text in _OPTIONS}
    files = {"type": "array", "items": _FILE, "minItems": 1, "description": "The images."}
    return {
        "type": "object",
        "properties": {"file": files, **fields},
        "required": ["file"],
        "additionalProperties": False,
    }


def _json_schema() -> dict[str, Any]:
    text = {"type": "string", "description": "Base64, or a data URL of it."}
    fields = {
        name: {"anyOf": [{**schema, "description": text}, {"type": "null"}]}
        for name, schema, _, text in _OPTIONS
    }
    one = {"image": {**text, "description": "One image: base64, or a data URL of it."}}
    many = {"images": {"type": "array", "items": text, "minItems": 1}}
    return {
        "oneOf": [
            {
                "type": "object",
                "title": title,
                "properties": {**images, **fields},
                "required": list(images),
                "additionalProperties": False,
            }
            for title, images in (("One image", one), ("Several images", many))
        ]
    }


CLASSIFY_REQUEST: dict[str, Any] = {
    "parameters": [
        *(_parameter("query", *option) for option in _OPTIONS),
        _parameter("header", HEADER, _RATIO_TEXT, "0.755", "The same as `reduction_ratio`."),
    ],
    "requestBody": {
        "required": True,
        "content": {
            **{f"image/{kind}": {"schema": _FILE} for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff")},
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {"schema": _form_schema(), "example": examples.FORM},
            "application/json": {
                "schema": _json_schema(),
                "examples": {
                    "one": {"summary": "One image", "value": examples.JSON_ONE},
                    "several": {"summary": "Several images", "value": examples.JSON_SEVERAL},
                },
            },
        },
    },
}


def problem_responses(*made: errors.PrunepoolError) -> dict[int | str, dict[str, Any]]:
    """Describe the error responses of a route, for FastAPI's `responses`.

    Args:
        made: an example of each error; 401 is added to all routes.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    given = (*made, examples.UNAUTHORIZED)
    for status in sorted({error.status for error in given}):
        here = [error for error in given if error.status == status]
        shown = {error.code: {"value": error.problem()} for error in here}
        responses[status] = {
            "model": schemas.Problem,
            "description": " or ".join(f"`{code}`" for code in shown) + ".",
            "content": {"application/json": {"examples": shown}},
        }
    return responses


def example_response(model: Any, example: object, description: str) -> dict[str, Any]:
    """Describe a successful response of a route, for FastAPI's `responses`."""
    content = {"application/json": {"example": example}}
    return {"model": model, "description": description, "content": content}


CLASSIFY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.Classification | schemas.Results,
        "description": "The classification, or the `results` of several images.",
        "content": {
            "application/json": {
                "examples": {
                    "one": {"summary": "One image", "value": examples.CLASSIFICATION},
                    "several": {"summary": "Several, one of them undecodable", "value": examples.RESULTS},
                    "explained": {"summary": "With `explain`, shortened", "value": examples.EXPLAINED},
                }
            }
        },
    },
    **problem_responses(
        examples.UNDECODABLE,
        examples.NOT_FOUND,
        examples.TIMEOUT,
        examples.BODY,
        examples.PIXELS,
        examples.MEDIA_TYPE,
        examples.PARAMETER,
        examples.RATE,
        examples.UNEXPECTED,
        examples.OVERLOADED,
        examples.DRAINING,
        examples.ENGINE,
        examples.DEADLINE,
    ),
}

_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, where the server asks for one.",
    },
    "header": {"type": "apiKey", "in": "header", "name": access.HEADER, "description": "The same key."},
}


def openapi(app: FastAPI, needs_key: Callable[[str], bool]) -> dict[str, Any]:
    """Make the OpenAPI document of the app, once.

    Args:
        app: the app with all its routes.
        needs_key: whether a path needs an API key.
    """
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        for path, operations in document["paths"].items():
            for operation in operations.values():
                # FastAPI documents its own 422 for every route with a parameter; this app never sends it.
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
                for status, response in operation["responses"].items():
                    _complete(int(status), response)
                if needs_key(path):
                    operation["security"] = [{scheme: []} for scheme in _SCHEMES]
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        document["components"]["securitySchemes"] = _SCHEMES
        app.openapi_schema = document
    return app.openapi_schema


def _complete(status: int, response: dict[str, Any]) -> None:
    """Add the headers of a response, and the media type if it is an error."""
    headers: dict[str, Any] = {
        "X-Request-ID": _header("string", "The request's own id, or a new one; log lines have it too.")
    }
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/Problem"):
        content[problems.MEDIA_TYPE] = content.pop("application/json")
        if status in (429, 503):
            headers["Retry-After"] = _header(
                "integer", "Seconds to wait before a retry, computed.", minimum=1
            )
        if status == 401:
            headers["WWW-Authenticate"] = _header("string", "How to authenticate.")
    response["headers"] = headers


def _header(kind: str, text: str, **more: object) -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind, **more}}
