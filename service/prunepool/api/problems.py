"""Errors as RFC 9457 problem documents: one shape for ours, the framework's and the unexpected."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from prunepool.errors import InvalidParameter, PrunepoolError, RateLimited, Unauthorized, Unavailable
from prunepool.logs import request_fields

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

MEDIA_TYPE = "application/problem+json"
#: No computed wait is worth more than this to a caller.
_LONGEST_WAIT_S = 3600.0


def problem_response(error: PrunepoolError) -> Response:
    """An error of the tree as its problem document."""
    return _response(error.problem(), error.status, error_headers(error))


def error_headers(error: PrunepoolError) -> dict[str, str]:
    """What goes with an error in any shape: when to try again, or how to say who one is."""
    if isinstance(error, Unavailable | RateLimited):
        return {"Retry-After": str(max(1, math.ceil(min(error.retry_after, _LONGEST_WAIT_S))))}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="prunepool"'}
    return {}


def unexpected_response() -> Response:
    """The answer to an error nobody foresaw; what it was stands in the log, under the request's id."""
    return problem_response(PrunepoolError("the server failed unexpectedly; its log says more"))


def handlers() -> dict[int | type[Exception], Handler]:
    """Exception handlers for the app."""
    return {
        PrunepoolError: _of_the_tree,
        HTTPException: _of_the_framework,
        RequestValidationError: _of_validation,
    }


async def _of_the_tree(request: Request, error: Exception) -> Response:
    assert isinstance(error, PrunepoolError)
    request_fields(request.scope)["code"] = error.code
    return problem_response(error)


async def _of_the_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_").replace("-", "_")
    request_fields(request.scope)["code"] = code
    detail = error.detail
    if status is HTTPStatus.NOT_FOUND:
        detail = f"nothing is served at {request.url.path}"
    elif status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.url.path} takes {allowed}; got {request.method}"
    document = {
        "type": f"urn:prunepool:error:{code}",
        "title": status.phrase,
        "status": error.status_code,
        "code": code,
        "detail": detail,
    }
    return _response(document, error.status_code, dict(error.headers or {}))


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    request_fields(request.scope)["code"] = InvalidParameter.code
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else "body"
    return problem_response(InvalidParameter(name, first.get("input"), f"valid ({first['msg']})"))


def _response(document: dict[str, object], status: int, headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(document, default=str), status, headers, MEDIA_TYPE)
