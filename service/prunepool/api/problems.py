"""Errors as RFC 9457 problem documents: our own, the framework's and unexpected ones."""

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

from prunepool.errors import (
    InvalidParameter,
    PrunepoolError,
    RateLimited,
    Unauthorized,
    Unavailable,
    problem_document,
)
from prunepool.logs import request_fields

Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

MEDIA_TYPE = "application/problem+json"
#: Longest Retry-After, in seconds.
_MAX_RETRY_AFTER_S = 3600.0


def problem_response(error: PrunepoolError) -> Response:
    """Make the response of one of our errors."""
    return _response(error.problem(), error.status, error_headers(error))


def error_headers(error: PrunepoolError) -> dict[str, str]:
    """Return the headers of an error, whatever its body: Retry-After, or WWW-Authenticate."""
    if isinstance(error, Unavailable | RateLimited):
        return {"Retry-After": str(max(1, math.ceil(min(error.retry_after, _MAX_RETRY_AFTER_S))))}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="prunepool"'}
    return {}


def unexpected_response() -> Response:
    """Make the response of an unexpected error; the log has the details, under the request's id."""
    return problem_response(PrunepoolError("the server failed unexpectedly; its log says more"))


def handlers() -> dict[int | type[Exception], Handler]:
    """Return the exception handlers of the app."""
    return {
        PrunepoolError: _handle_prunepool_error,
        HTTPException: _handle_http_exception,
        RequestValidationError: _handle_validation_error,
    }


async def _handle_prunepool_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PrunepoolError)
    request_fields(request.scope)["code"] = error.code
    return problem_response(error)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
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
    document = problem_document(code, status.phrase, error.status_code, detail)
    return _response(document, error.status_code, dict(error.headers or {}))


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    request_fields(request.scope)["code"] = InvalidParameter.code
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else "body"
    return problem_response(InvalidParameter(name, first.get("input"), f"valid ({first['msg']})"))


def _response(document: dict[str, object], status: int, headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(document, default=str), status, headers, MEDIA_TYPE)
