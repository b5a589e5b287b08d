"""Errors in the form that the protocol's clients read."""

from __future__ import annotations

from starlette.responses import Response

from prunepool.api.json_documents import json_response
from prunepool.api.problems import error_headers
from prunepool.errors import PrunepoolError


def error_response(error: PrunepoolError) -> Response:
    """Make the response `{"error": "…"}` with the status and the headers of an error."""
    response = json_response({"error": error.detail}, error.status)
    response.headers.update(error_headers(error))
    return response
