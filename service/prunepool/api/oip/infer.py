"""POST /v2/models/{name}/infer: tensors or encoded images in; logits, probabilities or classes out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from prunepool.api.access import charge
from prunepool.api.body_memory import BodyReservation
from prunepool.api.connection import read_body, while_connected
from prunepool.api.context import context_of
from prunepool.api.offload import SMALL_TENSORS, offload
from prunepool.api.oip import compression
from prunepool.api.oip.execution import TransportHooks, execute, log_fields_of, options_of
from prunepool.api.oip.requests import InferRequest, parse
from prunepool.api.oip.responses import encode
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View, find
from prunepool.api.options import HEADER, RawOption
from prunepool.logs import request_fields
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Inference

HEADER_LENGTH = "Inference-Header-Content-Length"


async def infer(request: Request, statistics: Statistics, name: str, version: str | None) -> Response:
    """Handle one request.

    Args:
        request: the request, its body unread.
        statistics: counts the request.
        name: name of the view.
        version: requested version, or None.

    Raises:
        PrunepoolError: the request failed.
    """
    context = context_of(request)
    limit = context.settings.max_body_bytes
    with context.body_memory.reserve() as reservation:
        async with context.drain.receiving():
            body = await read_body(request, limit, reservation)
        async with context.drain.answering():
            view = find(context.service, context.settings, name, version)
            hooks = TransportHooks(
                decode=partial(_decode, request, body, view, limit, reservation),
                charge=partial(charge, request),
                while_connected=while_connected(request),
                encode=partial(_encode, view, request.headers.get("accept-encoding")),
            )
            response, results = await execute(context.service, view, statistics, hooks)
            request_fields(request.scope).update(log_fields_of(view, results))
            return response


async def _decode(
    request: Request, body: bytes, view: View, limit: int, reservation: BodyReservation
) -> tuple[InferRequest, InferenceOptions]:
    coding = request.headers.get("content-encoding", compression.IDENTITY)
    length = request.headers.get(HEADER_LENGTH)
    if coding != compression.IDENTITY:
        body = await asyncio.to_thread(compression.decompress, body, coding, limit)
        reservation.add(len(body))
    # Bytes behind the JSON need no parsing: tensors are views of them. `parse` refuses a wrong length.
    in_json = int(length) if length is not None and length.isdecimal() and len(length) < 19 else len(body)
    parsed = await offload(in_json > SMALL_TENSORS, parse, body, length, view)
    # The header and the query are for clients that cannot send parameters.
    raw = [RawOption("header", HEADER, value) for value in request.headers.getlist(HEADER)]
    raw += [RawOption("query", name, value) for name, value in request.query_params.multi_items()]
    raw += [RawOption("parameters", name, value) for name, value in parsed.parameters.items()]
    return parsed, options_of(raw, view)


async def _encode(
    view: View, accept: str | None, request: InferRequest, results: Sequence[Inference]
) -> Response:
    encoded = encode(request, view, results)
    body, headers = encoded.body, {}
    coding = compression.accepted(accept)
    if coding != compression.IDENTITY:
        body = await offload(len(body) > SMALL_TENSORS, compression.compress, body, coding)
        headers["Content-Encoding"] = coding
    if encoded.header_length is None:
        return Response(body, headers=headers, media_type="application/json")
    headers[HEADER_LENGTH] = str(encoded.header_length)
    return Response(body, headers=headers, media_type="application/octet-stream")
