"""POST /classify: images in, predictions out, at the ratio each caller asks for."""

from __future__ import annotations

import asyncio

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from prunepool.api import describe
from prunepool.api.access import charge
from prunepool.api.answers import classification_json, json_response
from prunepool.api.connection import read_body, while_connected
from prunepool.api.forms import Submission, is_image, parse_body
from prunepool.api.offload import SMALL_BODY, offload
from prunepool.api.options import HEADER, Given, read_options
from prunepool.api.services import services
from prunepool.errors import PrunepoolError, UnsupportedMediaType
from prunepool.logs import request_fields
from prunepool.serving.types import Classification, Engine, Options, resolve

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
    """Classify what a request brings; several images run at the same time."""
    here = services(request)
    with here.room.place() as place:
        async with here.drain.receiving():
            body = await read_body(request, here.settings.max_body_bytes, place)
        async with here.drain.answering():
            submission = await _unpack(request, body, here.settings.max_images_per_request)
            del body  # only its images are still needed
            return await _answer(request, submission)


async def _answer(request: Request, submission: Submission) -> Response:
    engine = services(request).engine
    options = read_options([*_outside_the_body(request), *submission.options])
    # Once for all images: a wrong option is the whole request's fault, not one image's.
    resolve(options, engine.model(options.model or engine.default_model))
    charge(request, len(submission.images))
    async with while_connected(request):
        results = await _classify_all(engine, submission, options)
    request_fields(request.scope).update(_for_the_log(results))
    if submission.several:
        return json_response({"results": [_entry(result) for result in results]})
    if isinstance(results[0], PrunepoolError):
        raise results[0]
    return json_response(classification_json(results[0]))


async def _unpack(request: Request, body: bytes, max_images: int) -> Submission:
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding must be identity; got {coding[:100]!r}")
    content_type = request.headers.get("content-type")
    large = len(body) > SMALL_BODY and not is_image(content_type)
    return await offload(large, parse_body, content_type, body, max_images)


def _outside_the_body(request: Request) -> list[Given]:
    given = [Given("query", name, value) for name, value in request.query_params.multi_items()]
    return given + [Given("header", HEADER, value) for value in request.headers.getlist(HEADER)]


async def _classify_all(
    engine: Engine, submission: Submission, options: Options
) -> list[Classification | PrunepoolError]:
    if len(submission.images) == 1:
        return [await _classify_one(engine, submission.images[0], options)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_classify_one(engine, image, options)) for image in submission.images]
    return [task.result() for task in tasks]


async def _classify_one(
    engine: Engine, image: bytes | PrunepoolError, options: Options
) -> Classification | PrunepoolError:
    """One image's answer or error; neighbours in the request never learn of it."""
    if isinstance(image, PrunepoolError):
        return image
    try:
        return await engine.classify(image, options)
    except PrunepoolError as error:
        return error
    except Exception:
        _log.exception("unexpected error")
        return PrunepoolError("the server failed unexpectedly; its log says more")


def _entry(result: Classification | PrunepoolError) -> dict[str, object]:
    return result.problem() if isinstance(result, PrunepoolError) else classification_json(result)


def _for_the_log(results: list[Classification | PrunepoolError]) -> dict[str, object]:
    """One image in full; of several, how many and how they ended."""
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
