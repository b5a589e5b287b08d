"""POST …/infer: tensors or encoded images in, logits, probabilities or classes out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from prunepool.api.access import charge
from prunepool.api.body_memory import BodyReservation
from prunepool.api.connection import read_body, while_connected
from prunepool.api.offload import SMALL_TENSORS, offload
from prunepool.api.oip import compression
from prunepool.api.oip.answering import Exchange, answer, for_the_log, options_of
from prunepool.api.oip.requests import InferRequest, parse
from prunepool.api.oip.responses import encode
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View, find
from prunepool.api.options import HEADER, Given
from prunepool.api.services import services
from prunepool.logs import request_fields
from prunepool.serving.types import Inference, Options

HEADER_LENGTH = "Inference-Header-Content-Length"


async def infer(request: Request, statistics: Statistics, name: str, version: str | None) -> Response:
    """Answer one request.

    Args:
        request: with its body unread.
        statistics: where it is counted.
        name: the view's.
        version: the version asked for, or None.

    Raises:
        PrunepoolError: why there is no answer.
    """
    here = services(request)
    limit = here.settings.max_body_bytes
    with here.room.place() as place:
        async with here.drain.receiving():
            body = await read_body(request, limit, place)
        async with here.drain.answering():
            view = find(here.engine, here.settings, name, version)
            exchange = Exchange(
                unpack=partial(_unpack, request, body, view, limit, place),
                charge=partial(charge, request),
                connected=while_connected(request),
                pack=partial(_pack, view, request.headers.get("accept-encoding")),
            )
            response, answers = await answer(here.engine, view, statistics, exchange)
            request_fields(request.scope).update(for_the_log(view, answers))
            return response


async def _unpack(
    request: Request, body: bytes, view: View, limit: int, place: BodyReservation
) -> tuple[InferRequest, Options]:
    coding = request.headers.get("content-encoding", compression.IDENTITY)
    length = request.headers.get(HEADER_LENGTH)
    if coding != compression.IDENTITY:
        body = await asyncio.to_thread(compression.decompress, body, coding, limit)
        place.take(len(body))
    # Bytes behind the JSON are not parsed: tensors are views of them. A length that is wrong is refused by `parse`.
    in_json = int(length) if length is not None and length.isdecimal() else len(body)
    asked = await offload(in_json > SMALL_TENSORS, parse, body, length, view)
    # For clients that know no parameters there are the query and the header.
    given = [Given("header", HEADER, value) for value in request.headers.getlist(HEADER)]
    given += [Given("query", name, value) for name, value in request.query_params.multi_items()]
    given += [Given("parameters", name, value) for name, value in asked.parameters.items()]
    return asked, options_of(given, view)


async def _pack(
    view: View, accept: str | None, asked: InferRequest, answers: Sequence[Inference]
) -> Response:
    encoded = encode(asked, view, answers)
    body, headers = encoded.body, {}
    coding = compression.accepted(accept)
    if coding != compression.IDENTITY:
        body = await offload(len(body) > SMALL_TENSORS, compression.compress, body, coding)
        headers["Content-Encoding"] = coding
    if encoded.header_length is None:
        return Response(body, headers=headers, media_type="application/json")
    headers[HEADER_LENGTH] = str(encoded.header_length)
    return Response(body, headers=headers, media_type="application/octet-stream")
