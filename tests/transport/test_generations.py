"""A model that is replaced under requests, over every transport: no answer mixes two generations, and none fails.

Generations differ in everything: the size of the crop, what it shows, the number of classes, and their labels.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zmq.asyncio
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from ray_handle import Died, Handle

from prunepool.core.core import Core, CoreConfig
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Batch, Limits, Output
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.serving.service import InferenceService, ServiceConfig
from prunepool.serving.types import Classification, Inference
from prunepool.testing import FakeBackend, FakeCosts, fake_model
from prunepool.transport import ray
from prunepool.transport.client import ModelOffer
from prunepool.transport.early_refusal import FrontendLimits
from prunepool.transport.inproc import InprocCoreClient
from prunepool.transport.ray import RayCoreClient
from prunepool.transport.zmq.client import ZmqCoreClient
from prunepool.transport.zmq.connection import EngineConnection
from prunepool.transport.zmq.server import EngineServer
from prunepool.transport.zmq.shared_memory import Arena

GENERATIONS = 4


def classes_of(generation: int) -> int:
    return (7, 3, 11, 5)[generation]


def size_of(generation: int) -> int:
    return 4 + generation


def crop(data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
    """Shows which generation it was made for, for none but that takes it."""
    return np.full((preprocess.size, preprocess.size, 3), preprocess.size, np.uint8)


class Generation(FakeBackend):
    """Answers with the class that its generation answers with, if the crop was made for it."""

    def __init__(self, generation: int) -> None:
        super().__init__(classes_of(generation))
        self._generation = generation

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        for item in batch.items:
            size = len(item.request.pixels)
            assert size == size_of(self._generation), "a crop of another generation"
        return super().run(batch, prepared)


def model(generation: int, backend: Callable[[], FakeBackend] | None = None) -> ServedModel:
    labels = tuple(f"{generation}:{i}" for i in range(classes_of(generation)))
    info = fake_model("m", input_size=size_of(generation), labels=labels)
    return ServedModel(
        "m",
        lambda: info,
        Preprocess(size_of(generation), 1.0),
        FakeCosts(),
        lambda ratio: ratio,
        backend or (lambda: Generation(generation)),
        str(generation),
    )


def core(backend: Callable[[], FakeBackend] | None = None) -> Core:
    """An engine, with the first generation."""
    return Core([model(0, backend)], config=CoreConfig(limits=Limits(max_wait_s=0.0)), metrics=metrics())


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def service(client: Any) -> InferenceService:
    return InferenceService(client, ServiceConfig(decode_threads=1), metrics(), decode=crop)


LIMITS = FrontendLimits(1000, 1000.0)
Ends = tuple[list[Core], list[InferenceService]]


@asynccontextmanager
async def inproc() -> AsyncIterator[Ends]:
    """One process."""
    one = core()
    yield [one], [service(InprocCoreClient(one))]


@asynccontextmanager
async def zmq_engines() -> AsyncIterator[Ends]:
    """Two front ends over two engine processes."""
    cores = [core(), core()]
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        context = zmq.asyncio.Context()
        stack.callback(context.destroy, 0)
        arenas = [Arena(4, 4096), Arena(0, 4096)]
        addresses = [f"ipc://{folder}/{number}.sock" for number in range(len(cores))]
        servers = [
            EngineServer(context, address, InprocCoreClient(one), arenas)
            for address, one in zip(addresses, cores, strict=True)
        ]
        for one in cores:
            await one.start()
        for server in servers:
            server.open()
        services = []
        for number, arena in enumerate(arenas):
            stack.callback(arena.close)
            services.append(service(_zmq_client(context, addresses, number, arena)))
        yield cores, services
        for server in servers:
            await server.close()


def _zmq_client(context: Any, addresses: list[str], number: int, arena: Arena) -> ZmqCoreClient:
    connections = [
        EngineConnection(context, address, number, lambda: client.changed(), time.monotonic)
        for address in addresses
    ]
    client = ZmqCoreClient(connections, arena, LIMITS, metrics(), time.monotonic)
    return client


class Shuffled(Handle):
    """Any replica may be the next, as with Ray: in turns, requests that are tried again come to the same one."""

    def _next(self) -> tuple[str, Any]:
        return self._random.choice(sorted(self.replicas.items()))

    _random = Random(1)


@asynccontextmanager
async def ray_replicas() -> AsyncIterator[Ends]:
    """Two ingresses over two replicas."""
    cores = [core(), core()]
    for one in cores:
        await one.start()
    handle = Shuffled({name: InprocCoreClient(one) for name, one in zip("ab", cores, strict=True)})
    yield cores, [service(RayCoreClient(handle, (Died,), 20.0, LIMITS, time.monotonic)) for _ in range(2)]


@pytest.fixture(autouse=True)
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "STATUS_EVERY_S", 0.01)
    monkeypatch.setattr(ray, "_PAUSE_S", 0.001)


def check_classification(answer: Classification, wanted: int | None) -> int:
    """See that all of an answer is of one generation; which one."""
    generation = int(answer.predictions[0].label.split(":")[0])
    classes = classes_of(generation)
    assert [p.label for p in answer.predictions] == [f"{generation}:{p.index}" for p in answer.predictions]
    assert len(answer.predictions) == (min(5, classes) if wanted is None else wanted)
    assert answer.predictions[0].index == size_of(generation) % classes
    return generation


def check_inference(answer: Inference) -> int:
    generation = int(answer.generation)
    assert len(answer.logits) == len(answer.labels) == classes_of(generation)
    assert answer.labels[0] == f"{generation}:0"
    assert answer.logits.argmax() == size_of(generation) % classes_of(generation)
    return generation


async def ask(asked: InferenceService, over: asyncio.Event, seen: list[int]) -> None:
    """Ask without a pause, in every way."""
    for turn in itertools.count():
        if over.is_set():
            return
        if turn % 3 == 0:
            seen.append(check_inference(await asked.infer(b"photo", InferenceOptions())))
        else:
            top_k = (None, 3)[turn % 3 - 1]
            answer = await asked.classify(b"photo", InferenceOptions(top_k=top_k))
            seen.append(check_classification(answer, top_k))
        await asyncio.sleep(0)


async def replaced_under_requests(
    transport: Callable[[], Any], changes: Sequence[tuple[int, int, int]]
) -> None:
    over, seen = asyncio.Event(), list[int]()
    async with AsyncExitStack() as stack:
        cores, services = await stack.enter_async_context(transport())
        for one in services:
            await one.start()
            stack.push_async_callback(one.close, 5.0)
        asking = [asyncio.create_task(ask(one, over, seen)) for one in services for _ in range(2)]
        last = changes[-1][1]
        for engine, generation, answers in [*changes, *((number, last, 1) for number in range(len(cores)))]:
            one = cores[engine % len(cores)]
            if not one.serves(model(generation)):
                await one.prepare(model(generation))
                await one.commit("m")
            enough = len(seen) + answers
            while len(seen) < enough and not any(task.done() for task in asking):  # noqa: ASYNC110
                await asyncio.sleep(0)
        over.set()
        await asyncio.gather(*asking)  # not one has failed
        for one in services:
            while (answer := await one.infer(b"photo", InferenceOptions())).generation != str(last):
                check_inference(answer)  # it has not heard of the last change yet
                await asyncio.sleep(0.001)
        for one in cores:
            await one.close(1.0)


CHANGES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, GENERATIONS - 1), st.integers(0, 8)), min_size=1, max_size=8
)


@pytest.mark.parametrize("transport", [inproc, zmq_engines, ray_replicas])
@examples(0.25)
@given(changes=CHANGES)
def test_no_answer_mixes_two_generations_and_none_fails(
    transport: Callable[[], Any], changes: list[tuple[int, int, int]]
) -> None:
    asyncio.run(replaced_under_requests(transport, changes))


async def test_an_answer_of_another_generation_than_was_asked_is_not_passed_on() -> None:
    """A transport that lets one through does no harm: the request is prepared anew."""

    class Careless(InprocCoreClient):
        def reserve(self, name: str, generation: str, *rest: Any) -> Any:
            return super().reserve(name, self.core.entries[0].model.generation, *rest)

    class Late(Careless):
        stale = 2

        def offers(self) -> Any:
            if self.stale:
                self.stale -= 1
                old = model(1)
                return {"m": ModelOffer(old.info(), old.preprocess, old.generation)}
            return super().offers()

    one = core(lambda: FakeBackend(classes_of(0)))  # takes any crop
    asked = service(Late(one))
    await asked.start()
    answer = await asked.classify(b"photo", InferenceOptions(model="m"))
    assert check_classification(answer, None) == 0
    await asked.close(1.0)
