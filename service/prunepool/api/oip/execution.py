"""Executes inference requests: the part that HTTP and gRPC share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from prunepool.api.connection import ClientGone
from prunepool.api.oip.requests import InferRequest
from prunepool.api.oip.responses import summary_of
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View
from prunepool.api.options import RawOption, read_options
from prunepool.errors import EngineUnavailable, RequestError
from prunepool.serving.options import InferenceOptions, resolve
from prunepool.serving.types import Image, Inference, Service

#: Parameters of this server. Others are meant for other servers, and are no error.
_OPTIONS = frozenset({"reduction_ratio", "max_reduction_ratio", "max_accuracy_drop", "deadline_ms"})
#: Times that the images of a request are run if its model is replaced meanwhile.
_MOST_REPLACED = 5

Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class TransportHooks(Generic[Response]):
    """The steps of a request that depend on its transport.

    Attributes:
        decode: reads the request and its options.
        charge: charges a number of images to the caller's rate limit, or raises.
        while_connected: cancels its block when the caller disconnects.
        encode: makes the response.
    """

    decode: Callable[[], Awaitable[tuple[InferRequest, InferenceOptions]]]
    charge: Callable[[int], None]
    while_connected: AbstractAsyncContextManager[None]
    encode: Callable[[InferRequest, Sequence[Inference]], Awaitable[Response]]


async def execute(
    service: Service, view: View, statistics: Statistics, hooks: TransportHooks[Response]
) -> tuple[Response, list[Inference]]:
    """Execute a request, and count it.

    Args:
        service: runs inference.
        view: the model as the request names it.
        statistics: counts the request.
        hooks: the steps that depend on the transport.

    Returns:
        The encoded response, and the results in it.

    Raises:
        PrunepoolError: the request failed.
    """
    clock = statistics.clock_ns
    start = clock()
    with _failures(statistics, view.name, start):
        request, options = await hooks.decode()
        resolve(options, view.info)  # so that a wrong option fails the request before any image is run
        hooks.charge(len(request.images))
        decoded = clock()
        async with hooks.while_connected:
            results = await _infer_all(service, request.images, options, statistics, view.name)
        inferred = clock()
        response = await hooks.encode(request, results)
        end = clock()
    statistics.succeeded(
        view.name, results, decode_ns=decoded - start, encode_ns=end - inferred, total_ns=end - start
    )
    return response, results


def options_of(raw: Iterable[RawOption], view: View) -> InferenceOptions:
    """Read the options of this server among all parameters of a request.

    Raises:
        InvalidParameter: an option cannot be read, or has two different values.
    """
    ours = (option for option in raw if option.source == "header" or option.name in _OPTIONS)
    return replace(read_options(ours), model=view.info.name)


def log_fields_of(view: View, results: Sequence[Inference]) -> dict[str, object]:
    """Return the fields of a request's log line; the times are those of the slowest image."""
    slowest = max(results, key=lambda result: result.timing_ms.total)
    return {
        "model": view.name,
        "images": len(results),
        "ratio": round(summary_of(results).reduction_ratio, 4),
        "batch": slowest.batch_size,
        "decode_ms": round(slowest.timing_ms.decode, 2),
        "queue_ms": round(slowest.timing_ms.queue, 2),
        "inference_ms": round(slowest.timing_ms.inference, 2),
    }


@contextmanager
def _failures(statistics: Statistics, view: str, start: int) -> Iterator[None]:
    """Count a request that fails, unless it fails because its client disconnected."""
    try:
        yield
    except ClientGone:
        raise
    except Exception:
        statistics.failed(view, statistics.clock_ns() - start)
        raise


async def _infer_all(
    service: Service, images: Sequence[Image], options: InferenceOptions, statistics: Statistics, view: str
) -> list[Inference]:
    """Run all images of a request by one generation of the model, for they share an output tensor.

    Raises:
        EngineUnavailable: the model was replaced again and again meanwhile.
        PrunepoolError: an image failed; its error fails the request, as the protocol demands.
    """
    for _ in range(_MOST_REPLACED):
        results = await _infer_each(service, images, options, statistics, view)
        if len({result.generation for result in results}) == 1:
            return results
    detail = f"{view} was replaced {_MOST_REPLACED} times while this request was answered"
    raise EngineUnavailable(detail, retry_after=1.0)


async def _infer_each(
    service: Service, images: Sequence[Image], options: InferenceOptions, statistics: Statistics, view: str
) -> list[Inference]:
    """Run all images of a request concurrently; the first error is that of all."""

    async def infer_one(index: int, image: Image) -> Inference:
        try:
            inference = await service.infer(image, options)
        except RequestError as error:
            if len(images) > 1:
                error.detail = f"image {index} of {len(images)}, counted from 0: {error.detail}"
            raise
        statistics.inferred(view, inference)
        return inference

    if len(images) == 1:
        return [await infer_one(0, images[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(infer_one(*numbered)) for numbered in enumerate(images)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
