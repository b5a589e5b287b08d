"""A front end's engine over links to hosts, all in one process: answers, errors, losses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq.asyncio

from prunepool.core.types import Pixels
from prunepool.errors import (
    EngineUnavailable,
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    PrunepoolError,
)
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.remote_engine import RemoteConfig, RemoteEngine
from prunepool.serving.types import Engine, Inference, Options
from prunepool.testing import FakeEngine, fake_model
from prunepool.transport.messages import Load, Offer
from prunepool.transport.zmq.client import Engines
from prunepool.transport.zmq.connection import Disconnected, Link
from prunepool.transport.zmq.server import Host
from prunepool.transport.zmq.shared_memory import Arena

SIZE = 4


class Hosted:
    """Answers with the first pixel, when it may."""

    def __init__(self, *names: str) -> None:
        self.fake = FakeEngine([fake_model(name, input_size=SIZE) for name in names or ("m",)])
        self.free = asyncio.Event()
        self.free.set()
        self.asked: list[Any] = []
        self.cancelled = 0
        self.error: PrunepoolError | None = None
        self.drain_s = 0.0

    @property
    def default_model(self) -> str:
        return self.fake.default_model

    def offers(self) -> Sequence[Offer]:
        return [Offer(info, Preprocess(SIZE, 1.0)) for info in self.fake.models()]

    def loads(self) -> Mapping[str, Load]:
        return {info.name: Load(None, self.drain_s, 0.1) for info in self.fake.models()}

    async def infer_decoded(
        self, pixels: Pixels, options: Options, *, arrival: float, decode_s: float
    ) -> Inference:
        self.asked.append(pixels)
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return await self.fake.infer(np.full((3, SIZE, SIZE), pixels.flat[0], np.float32), options)


class Rig:
    """Hosts that can be opened and closed, and an engine over links to them."""

    def __init__(self, folder: Path, metrics: Metrics, slots: int) -> None:
        self.folder = folder
        self.metrics = metrics
        self.context = zmq.asyncio.Context()
        self.arena = Arena(slots, 4096)
        self.hosts: dict[int, Host] = {}
        self.engine: RemoteEngine | None = None

    def address(self, number: int) -> str:
        return f"ipc://{self.folder}/{number}.sock"

    def open(self, number: int, hosted: Hosted) -> None:
        self.hosts[number] = Host(self.context, self.address(number), hosted, [self.arena])
        self.hosts[number].open()

    async def lose(self, number: int) -> None:
        await self.hosts.pop(number).close()

    async def start(self, *hosted: Hosted, **changes: Any) -> RemoteEngine:
        for number, one in enumerate(hosted):
            self.open(number, one)
        links = [
            Link(self.context, self.address(number), 0, lambda: engines.changed(), time.monotonic)
            for number in range(len(hosted))
        ]
        engines = Engines(links, self.metrics, time.monotonic)
        settings: dict[str, Any] = {
            "default_ratio": "auto",
            "max_ratio": None,
            "decode_threads": 1,
            "image_limits": ImageLimits(),
            "max_requests": 100,
            "max_queue_s": 10.0,
            **changes,
        }
        self.engine = RemoteEngine(engines, self.arena, RemoteConfig(**settings), self.metrics)
        await self.engine.start()
        return self.engine


@pytest.fixture(params=[8, 0], ids=["shared memory", "in the message"])
async def rig(request: Any, tmp_path: Path, metrics: Metrics) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, metrics, request.param)
    yield made
    if made.engine is not None:
        await made.engine.close(0.0)
    for host in made.hosts.values():
        await host.close()
    made.context.destroy(0)


async def until(condition: Callable[[], object]) -> None:
    """A test that waits in vain runs into its time limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def tensor(value: float) -> np.ndarray:
    return np.full((3, SIZE, SIZE), value, np.float32)


def counted(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("prunepool_requests_total", {"model": "m", "outcome": outcome})


async def test_an_image_gets_its_own_answer(rig: Rig) -> None:
    hosted = Hosted()
    engine: Engine = await rig.start(hosted)
    answers = await asyncio.gather(*(engine.infer(tensor(i), Options()) for i in range(20)))
    expected = [await hosted.fake.infer(tensor(i), Options()) for i in range(20)]
    for answer, wanted in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer.logits, wanted.logits)
    assert rig.arena.free in (8, 0)


async def test_what_is_served_is_known(rig: Rig) -> None:
    hosted = Hosted("a", "b")
    engine = await rig.start(hosted)
    assert engine.default_model == "a"
    assert engine.models() == hosted.fake.models()
    assert engine.readiness().ready
    with pytest.raises(ModelNotFound, match="there are: a, b"):
        await engine.infer(tensor(0), Options(model="c"))


async def test_an_engine_s_error_is_the_caller_s_and_is_counted_there(rig: Rig) -> None:
    hosted = Hosted()
    engine = await rig.start(hosted)
    hosted.error = Overloaded("full", retry_after=3.0)
    with pytest.raises(Overloaded, match="full") as caught:
        await engine.infer(tensor(0), Options())
    assert caught.value.retry_after == 3.0
    assert counted(rig.metrics, "overloaded") is None


@pytest.mark.parametrize(
    ("image", "options", "error"),
    [
        (b"no image", Options(), ImageUndecodable),
        (b"no image", Options(reduction_ratio=2.0), InvalidParameter),
        (np.zeros((1, 2), np.float32), Options(), InvalidParameter),
    ],
)
async def test_what_is_refused_here_is_counted_here(
    rig: Rig, image: Any, options: Options, error: type[PrunepoolError]
) -> None:
    hosted = Hosted()
    engine = await rig.start(hosted)
    with pytest.raises(error):
        await engine.infer(image, options)
    assert (hosted.asked, counted(rig.metrics, error.code)) == ([], 1)


async def test_a_caller_who_leaves_is_given_up(rig: Rig) -> None:
    hosted = Hosted()
    hosted.free.clear()
    engine = await rig.start(hosted)
    task = asyncio.create_task(engine.infer(tensor(0), Options()))
    await until(lambda: hosted.asked)
    task.cancel()
    await until(lambda: hosted.cancelled)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_image_whose_engine_is_lost_is_asked_of_another(rig: Rig) -> None:
    first, second = Hosted(), Hosted()
    first.free.clear()
    second.free.clear()
    engine = await rig.start(first, second)
    tasks = [asyncio.create_task(engine.infer(tensor(i), Options())) for i in range(4)]
    await until(lambda: len(first.asked) + len(second.asked) == 4)
    assert len(first.asked) == len(second.asked) == 2
    await rig.lose(0)
    second.free.set()
    assert len(await asyncio.gather(*tasks)) == 4
    assert len(second.asked) == 4
    assert engine.readiness().ready


async def test_an_image_waits_for_its_engine_to_come_back(rig: Rig) -> None:
    hosted = Hosted()
    hosted.free.clear()
    engine = await rig.start(hosted)
    task = asyncio.create_task(engine.infer(tensor(7), Options()))
    await until(lambda: hosted.asked)
    await rig.lose(0)
    await until(lambda: not engine.readiness().ready)
    successor = Hosted()
    rig.open(0, successor)
    assert (await task).model == "m"
    assert successor.asked[0].flat[0] == 7


async def test_nobody_waits_for_ever_and_newcomers_not_at_all(rig: Rig) -> None:
    hosted = Hosted()
    hosted.free.clear()
    engine = await rig.start(hosted)
    task = asyncio.create_task(engine.infer(tensor(7), Options()))
    await until(lambda: hosted.asked)
    await rig.lose(0)
    await until(lambda: not engine.readiness().ready)
    start = time.monotonic()
    for waiting in (engine.infer(tensor(1), Options()), task):
        with pytest.raises(EngineUnavailable) as caught:
            await waiting
        assert caught.value.retry_after > 0
    assert time.monotonic() - start < 2.0
    assert counted(rig.metrics, "engine_unavailable") == 2
    assert engine.models()  # what was served is known still


async def test_an_image_that_loses_two_engines_takes_no_third(rig: Rig) -> None:
    engines = [Hosted(), Hosted(), Hosted()]
    for one in engines:
        one.free.clear()
    engine = await rig.start(*engines)
    task = asyncio.create_task(engine.infer(tensor(7), Options()))
    for _ in range(2):
        await until(lambda: any(one.asked for one in engines))
        (number,) = (number for number, one in enumerate(engines) if one.asked)
        engines[number].asked.clear()
        await rig.lose(number)
    with pytest.raises(EngineUnavailable, match="two engines died"):
        await task


async def test_more_than_can_be_done_in_time_is_refused_before_it_is_decoded(rig: Rig) -> None:
    hosted = Hosted()
    hosted.drain_s = 11.0
    engine = await rig.start(hosted)
    with pytest.raises(Overloaded) as caught:
        await engine.infer(b"not looked at", Options())
    assert caught.value.retry_after == pytest.approx(11.0, abs=0.5)  # it has worked since it said so


async def test_a_model_that_comes_is_known_after_a_look(rig: Rig) -> None:
    hosted = Hosted("a")
    engine = await rig.start(hosted)
    hosted.fake = FakeEngine([fake_model("a", input_size=SIZE), fake_model("b", input_size=SIZE)])
    assert engine._engines is not None
    await engine._engines.look()
    assert (await engine.infer(tensor(1), Options(model="b"))).model == "b"


async def test_closing_waits_for_what_was_accepted(rig: Rig) -> None:
    hosted = Hosted()
    hosted.free.clear()
    engine = await rig.start(hosted)
    task = asyncio.create_task(engine.infer(tensor(0), Options()))
    await until(lambda: hosted.asked)
    closing = asyncio.create_task(engine.close(5.0))
    await asyncio.sleep(0)
    hosted.free.set()
    assert await closing
    assert (await task).model == "m"


async def test_an_engine_that_dies_as_it_connects_is_found_when_it_is_back(rig: Rig) -> None:
    address = rig.address(0)
    link = Link(rig.context, address, 0, lambda: None, time.monotonic)
    link.open()
    with zmq.Context() as elsewhere:
        short_lived = elsewhere.socket(zmq.ROUTER)
        monitor = short_lived.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        short_lived.bind(address)
        monitor.recv_multipart()  # connected; and dead before the link's event loop hears of it
        short_lived.disable_monitor()
        monitor.close(0)
        short_lived.close(0)
    try:
        rig.open(0, Hosted())
        await until(lambda: link.state is not None)
    finally:
        link.close()


async def test_a_caller_who_leaves_as_the_engine_is_lost_is_gone(rig: Rig, monkeypatch: Any) -> None:
    hosted = Hosted()
    hosted.free.clear()
    engine = await rig.start(hosted)
    task = asyncio.create_task(engine.infer(tensor(0), Options()))
    await until(lambda: hosted.asked)

    async def lost(*_: object) -> None:
        raise Disconnected("the engine is not there")

    monkeypatch.setattr(Link, "_send", lost)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
