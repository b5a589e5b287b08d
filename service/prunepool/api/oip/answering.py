"""From an unpacked request to its answers: what is the same over HTTP and over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from prunepool.api.connection import ClientGone
from prunepool.api.oip.requests import InferRequest
from prunepool.api.oip.responses import spent
from prunepool.api.oip.statistics import Statistics
from prunepool.api.oip.views import View
from prunepool.api.options import Given, read_options
from prunepool.errors import RequestError
from prunepool.serving.types import Engine, Image, Inference, Options, resolve

#: Parameters that mean something here. All others are for other servers, and no error.
_OPTIONS = frozenset({"reduction_ratio", "max_reduction_ratio", "max_accuracy_drop", "deadline_ms"})

Packed = TypeVar("Packed")


@dataclass(frozen=True, slots=True)
class Exchange(Generic[Packed]):
    """What a transport does with a request.

    Attributes:
        unpack: what is asked, and its options.
        charge: takes so many images from what the caller may send; raises if that is too many.
        connected: cancels what runs inside when the caller goes away.
        pack: makes the answer that is sent.
    """

    unpack: Callable[[], Awaitable[tuple[InferRequest, Options]]]
    charge: Callable[[int], None]
    connected: AbstractAsyncContextManager[None]
    pack: Callable[[InferRequest, Sequence[Inference]], Awaitable[Packed]]


async def answer(
    engine: Engine, view: View, statistics: Statistics, exchange: Exchange[Packed]
) -> tuple[Packed, list[Inference]]:
    """Answer a request, and count it.

    Args:
        engine: what infers.
        view: what is asked.
        statistics: where it is counted.
        exchange: the transport's part.

    Returns:
        The packed answer, and what it was made of.

    Raises:
        PrunepoolError: why there is no answer.
    """
    clock = statistics.clock_ns
    start = clock()
    with _failures(statistics, view.name, start):
        asked, options = await exchange.unpack()
        resolve(options, view.info)  # once for all images, before the first is looked at
        exchange.charge(len(asked.images))
        unpacked = clock()
        async with exchange.connected:
            answers = await _infer_all(engine, asked.images, options, statistics, view.name)
        inferred = clock()
        packed = await exchange.pack(asked, answers)
        end = clock()
    statistics.succeeded(
        view.name, answers, unpacked_ns=unpacked - start, packed_ns=end - inferred, total_ns=end - start
    )
    return packed, answers


def options_of(given: Iterable[Given], view: View) -> Options:
    """The options among what a caller gave, whatever else that is.

    Raises:
        InvalidParameter: one that cannot be read, or that contradicts another.
    """
    ours = (one for one in given if one.place == "header" or one.name in _OPTIONS)
    return replace(read_options(ours), model=view.info.name)


def for_the_log(view: View, answers: Sequence[Inference]) -> dict[str, object]:
    """What a request's line says; the times are those of the slowest image."""
    slowest = max(answers, key=lambda answer: answer.timing_ms.total)
    return {
        "model": view.name,
        "images": len(answers),
        "ratio": round(spent(answers).reduction_ratio, 4),
        "batch": slowest.batch_size,
        "decode_ms": round(slowest.timing_ms.decode, 2),
        "queue_ms": round(slowest.timing_ms.queue, 2),
        "inference_ms": round(slowest.timing_ms.inference, 2),
    }


@contextmanager
def _failures(statistics: Statistics, view: str, start: int) -> Iterator[None]:
    """Count a request that gets an error; one whose client left gets none."""
    try:
        yield
    except ClientGone:
        raise
    except Exception:
        statistics.failed(view, statistics.clock_ns() - start)
        raise


async def _infer_all(
    engine: Engine, images: Sequence[Image], options: Options, statistics: Statistics, view: str
) -> list[Inference]:
    """All images of a request at the same time; the protocol has no place for the error of one of them."""

    async def infer_one(index: int, image: Image) -> Inference:
        try:
            inference = await engine.infer(image, options)
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
