"""POST /classify: images in, predictions out, at the reduction ratio that each request asks for."""

from __future__ import annotations

import asyncio

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from prunepool.api import describe
from prunepool.api.access import charge
from prunepool.api.connection import read_body, while_connected
from prunepool.api.context import context_of
from prunepool.api.forms import ParsedBody, needs_parsing, parse_body
from prunepool.api.json_documents import classification_json, json_response
from prunepool.api.offload import SMALL_BODY, offload
from prunepool.api.options import HEADER, RawOption, read_options
from prunepool.api.transfer_encoding import decode_transfer
from prunepool.errors import PrunepoolError, UnsupportedMediaType
from prunepool.logs import request_fields
from prunepool.serving.options import InferenceOptions, resolve
from prunepool.serving.types import Classification, Service

router = APIRouter(tags=["classify"])
_log = structlog.stdlib.get_logger("prunepool.http")


@router.post(
    "/classify",
    summary="Classify one image or several",
    description=describe.CLASSIFY,
    responses=describe.CLASSIFY_RESPONSES,
    openapi_extra=describe.CLASSIFY_REQUEST,
)
async def classify(request: Request) -> Response:
    """Classify the images of a request; several images run concurrently."""
    context = context_of(request)
    with context.body_memory.reserve() as reservation:
        async with context.drain.receiving():
            body = await read_body(request, context.settings.max_body_bytes, reservation)
        async with context.drain.answering():
            parsed = await _parse(request, body, context.settings.max_images_per_request)
            del body  # so that only its images stay in memory
            return await _answer(request, parsed)


async def _answer(request: Request, parsed: ParsedBody) -> Response:
    service = context_of(request).service
    options = read_options([*_query_and_header(request), *parsed.options])
    # Checked before any image: a wrong option fails the whole request, not one of its images.
    resolve(options, service.model(options.model or service.default_model))
    charge(request, len(parsed.images))
    async with while_connected(request):
        results = await _classify_all(service, parsed, options)
    request_fields(request.scope).update(_log_fields(results))
    if parsed.as_list:
        return json_response({"results": [_result_json(result) for result in results]})
    if isinstance(results[0], PrunepoolError):
        raise results[0]
    return json_response(classification_json(results[0]))


async def _parse(request: Request, body: bytes, max_images: int) -> ParsedBody:
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding must be identity; got {coding[:100]!r}")
    if transfer_coding := request.headers.get("content-transfer-encoding"):
        body = await offload(len(body) > SMALL_BODY, decode_transfer, transfer_coding, body)
    content_type = request.headers.get("content-type")
    large = len(body) > SMALL_BODY and needs_parsing(content_type, body)
    return await offload(large, parse_body, content_type, body, max_images)


def _query_and_header(request: Request) -> list[RawOption]:
    query = [RawOption("query", name, value) for name, value in request.query_params.multi_items()]
    return query + [RawOption("header", HEADER, value) for value in request.headers.getlist(HEADER)]


async def _classify_all(
    service: Service, parsed: ParsedBody, options: InferenceOptions
) -> list[Classification | PrunepoolError]:
    if len(parsed.images) == 1:
        return [await _classify_one(service, parsed.images[0], options)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_classify_one(service, image, options)) for image in parsed.images]
    return [task.result() for task in tasks]


async def _classify_one(
    service: Service, image: bytes | PrunepoolError, options: InferenceOptions
) -> Classification | PrunepoolError:
    """Return the image's classification or error; an error does not affect the other images."""
    if isinstance(image, PrunepoolError):
        return image
    try:
        return await service.classify(image, options)
    except PrunepoolError as error:
        return error
    except Exception:
        _log.exception("unexpected error")
        return PrunepoolError("the server failed unexpectedly; its log says more")


def _result_json(result: Classification | PrunepoolError) -> dict[str, object]:
    return result.problem() if isinstance(result, PrunepoolError) else classification_json(result)


def _log_fields(results: list[Classification | PrunepoolError]) -> dict[str, object]:
    """Describe the request in its log line: one image in detail, several by their number and errors."""
    first = results[0]
    if len(results) > 1:
        failed = [result.code for result in results if isinstance(result, PrunepoolError)]
        fields: dict[str, object] = {"images": len(results), "failed": len(failed)}
        if failed:
            fields["codes"] = ",".join(sorted(set(failed)))
        return fields
    if isinstance(first, PrunepoolError):
        return {"code": first.code}
    return {
        "model": first.model,
        "ratio": round(first.reduction.applied, 4),
        "batch": first.batch_size,
        "decode_ms": round(first.timing_ms.decode, 2),
        "queue_ms": round(first.timing_ms.queue, 2),
        "inference_ms": round(first.timing_ms.inference, 2),
    }
