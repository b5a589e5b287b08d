"""Errors in the shape that the protocol's clients read."""

from __future__ import annotations

from starlette.responses import Response

from prunepool.api.answers import json_response
from prunepool.api.problems import error_headers
from prunepool.errors import PrunepoolError


def error_response(error: PrunepoolError) -> Response:
    """`{"error": "…"}` and the error's status, with the headers that go with the error in any shape."""
    response = json_response({"error": error.detail}, error.status)
    response.headers.update(error_headers(error))
    return response
