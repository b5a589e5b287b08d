"""A front end's engine over links to hosts, all in one process: answers, errors, losses."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq.asyncio
from fake_core import SIZE, FakeCore
from pictures import pictures

from prunepool.core.types import RatioSpec, Request, Result
from prunepool.errors import (
    EngineUnavailable,
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
    PrunepoolError,
)
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.serving.service import InferenceService, ServiceConfig
from prunepool.serving.types import Service
from prunepool.transport.early_refusal import FrontendLimits
from prunepool.transport.messages import Handshake, Submit, Unreadable, decode_for_frontend, encode
from prunepool.transport.zmq import connection
from prunepool.transport.zmq import server as zmq_server
from prunepool.transport.zmq.client import ZmqCoreClient
from prunepool.transport.zmq.connection import EngineConnection
from prunepool.transport.zmq.failures import Disconnected, Unsent
from prunepool.transport.zmq.running_table import Row, RunningTable
from prunepool.transport.zmq.server import EngineServer
from prunepool.transport.zmq.shared_memory import Arena


class Rig:
    """Servers that can be opened and closed, and a service over connections to them."""

    def __init__(self, folder: Path, metrics: Metrics, slots: int) -> None:
        self.folder = folder
        self.metrics = metrics
        self.context = zmq.asyncio.Context()
        self.arena = Arena(slots, 4096)
        self.servers: dict[int, EngineServer] = {}
        self.tables: dict[int, RunningTable] = {}
        self.engine: InferenceService | None = None

    def address(self, number: int) -> str:
        return f"ipc://{self.folder}/{number}.sock"

    def open(self, number: int, core: FakeCore, server: type[EngineServer] = EngineServer) -> None:
        table = self.tables.get(number)
        self.servers[number] = server(self.context, self.address(number), core, [self.arena], table)
        self.servers[number].open()

    def connected(self, number: int) -> bool:
        return self.connections[number].status is not None

    async def lose(self, number: int) -> None:
        await self.servers.pop(number).close()

    async def start(
        self, *cores: FakeCore, absent: int = 0, servers: type[EngineServer] = EngineServer, **limits: Any
    ) -> InferenceService:
        for number, one in enumerate(cores):
            self.open(number, one, servers)
        connections = [
            EngineConnection(
                self.context,
                self.address(number),
                0,
                lambda: client.changed(),
                time.monotonic,
                running=self.tables.get(number),
            )
            for number in range(len(cores) + absent)
        ]
        self.connections = connections
        bounds = FrontendLimits(**{"max_requests": 100, "max_queue_s": 10.0, **limits})
        client = ZmqCoreClient(connections, self.arena, bounds, self.metrics, time.monotonic)
        self.client = client
        self.engine = InferenceService(client, ServiceConfig(decode_threads=1), self.metrics)
        await self.engine.start()  # returns when the first engine has reported; tests reckon with all of them
        await until(lambda: all(one.status is not None for one in connections[: len(cores)]))
        return self.engine


@pytest.fixture(params=[8, 0], ids=["shared memory", "in the message"])
async def rig(request: Any, tmp_path: Path, metrics: Metrics) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, metrics, request.param)
    yield made
    if made.engine is not None:
        await made.engine.close(0.0)
    for server in made.servers.values():
        await server.close()
    made.context.destroy(0)


async def until(condition: Callable[[], object]) -> None:
    """A test that waits in vain runs into its time limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def picture() -> bytes:
    return pictures(1, 16)[0]


def tensor(value: float) -> np.ndarray:
    return np.full((3, SIZE, SIZE), value, np.float32)


def counted(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("prunepool_requests_total", {"model": "m", "outcome": outcome})


async def test_an_image_gets_its_own_answer(rig: Rig) -> None:
    engine: Service = await rig.start(FakeCore())
    answers = await asyncio.gather(*(engine.infer(tensor(i), InferenceOptions()) for i in range(20)))
    assert [answer.logits.argmax() for answer in answers] == list(range(20))
    assert rig.arena.free in (8, 0)


async def test_what_is_served_is_known(rig: Rig) -> None:
    core = FakeCore("a", "b")
    engine = await rig.start(core)
    assert engine.default_model == "a"
    assert [info.name for info in engine.models()] == ["a", "b"]
    assert engine.readiness().ready
    with pytest.raises(ModelNotFound, match="there are: a, b"):
        await engine.infer(tensor(0), InferenceOptions(model="c"))


async def test_an_engine_s_error_is_the_caller_s_and_is_counted_once(rig: Rig) -> None:
    core = FakeCore()
    engine = await rig.start(core)
    core.error = Overloaded("full", retry_after=3.0)
    with pytest.raises(Overloaded, match="full") as caught:
        await engine.infer(tensor(0), InferenceOptions())
    assert caught.value.retry_after == 3.0
    assert counted(rig.metrics, "overloaded") == 1


@pytest.mark.parametrize(
    ("image", "options", "error"),
    [
        (b"no image", InferenceOptions(), ImageUndecodable),
        (b"no image", InferenceOptions(reduction_ratio=2.0), InvalidParameter),
        (np.zeros((1, 2), np.float32), InferenceOptions(), InvalidParameter),
    ],
)
async def test_what_is_refused_here_is_counted_here(
    rig: Rig, image: Any, options: InferenceOptions, error: type[PrunepoolError]
) -> None:
    core = FakeCore()
    engine = await rig.start(core)
    with pytest.raises(error):
        await engine.infer(image, options)
    assert (core.asked, counted(rig.metrics, error.code)) == ([], 1)


async def test_a_caller_who_leaves_is_given_up(rig: Rig) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    task = asyncio.create_task(engine.infer(tensor(0), InferenceOptions()))
    await until(lambda: core.asked)
    task.cancel()
    await until(lambda: core.cancelled)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_image_whose_engine_is_lost_is_asked_of_another(rig: Rig) -> None:
    first, second = FakeCore(), FakeCore()
    first.free.clear()
    second.free.clear()
    engine = await rig.start(first, second)
    tasks = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(4)]
    await until(lambda: len(first.asked) + len(second.asked) == 4)
    assert len(first.asked) == len(second.asked) == 2
    await rig.lose(0)
    second.free.set()
    assert len(await asyncio.gather(*tasks)) == 4
    assert len(second.asked) == 4
    assert engine.readiness().ready


async def test_an_image_waits_for_its_engine_to_come_back(rig: Rig) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    task = asyncio.create_task(engine.infer(tensor(7), InferenceOptions()))
    await until(lambda: core.asked)
    await rig.lose(0)
    await until(lambda: not engine.readiness().ready)
    successor = FakeCore()
    rig.open(0, successor)
    assert (await task).model == "m"
    assert successor.asked[0].pixels.flat[0] == 7


async def test_nobody_waits_for_ever_and_newcomers_not_at_all(rig: Rig) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    task = asyncio.create_task(engine.infer(tensor(7), InferenceOptions()))
    await until(lambda: core.asked)
    await rig.lose(0)
    await until(lambda: not engine.readiness().ready)
    start = time.monotonic()
    for waiting in (engine.infer(tensor(1), InferenceOptions()), task):
        with pytest.raises(EngineUnavailable) as caught:
            await waiting
        assert caught.value.retry_after > 0
    assert time.monotonic() - start < 2.0
    assert counted(rig.metrics, "engine_unavailable") == 2
    assert engine.models()  # what was served is known still


async def test_an_image_that_loses_two_engines_takes_no_third(rig: Rig) -> None:
    engines = [FakeCore(), FakeCore(), FakeCore()]
    for one in engines:
        one.free.clear()
    engine = await rig.start(*engines)
    task = asyncio.create_task(engine.infer(tensor(7), InferenceOptions()))
    for _ in range(2):
        await until(lambda: any(one.asked for one in engines))
        (number,) = (number for number, one in enumerate(engines) if one.asked)
        engines[number].asked.clear()
        await rig.lose(number)
    with pytest.raises(EngineUnavailable, match="two engines died"):
        await task


async def test_what_merely_waited_behind_an_image_that_kills_engines_is_not_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Row, "free", lambda row: None)  # a process that is killed does not tidy up

    class Killed(FakeCore):
        """Runs the image of value 7 on its device; the others wait."""

        async def submit(self, request: Request) -> Result:
            if request.pixels.flat[0] == 7:
                assert request.mark is not None
                request.mark.set()
            return await super().submit(request)

    cores = [Killed(), Killed(), Killed()]
    rig.tables = {number: RunningTable() for number in range(3)}
    cores[0].free.clear()
    cores[1].free.clear()
    engine = await rig.start(*cores[:1], absent=2)
    deadly, *others = (asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in (7, 1, 2, 3))
    for number in (0, 1):
        await until(lambda number=number: len(cores[number].asked) == 4)
        assert sum(request.attempts for request in cores[number].asked) == number
        rig.open(number + 1, cores[number + 1])
        await until(lambda number=number: rig.connected(number + 1))
        await rig.lose(number)
    with pytest.raises(EngineUnavailable, match="two engines died"):
        await deadly
    answers = await asyncio.gather(*others)
    assert [answer.logits.argmax() for answer in answers] == [1, 2, 3]
    assert all(request.attempts == 0 for request in cores[2].asked)


async def test_more_than_can_be_done_in_time_is_refused_before_it_is_decoded(rig: Rig) -> None:
    core = FakeCore()
    core.drain_s = 11.0
    engine = await rig.start(core)
    with pytest.raises(Overloaded) as caught:
        await engine.infer(b"not looked at", InferenceOptions())
    assert caught.value.retry_after == pytest.approx(11.0, abs=0.5)  # it has worked since it said so


async def test_a_model_that_comes_is_known_after_a_refresh(rig: Rig) -> None:
    core = FakeCore("a")
    engine = await rig.start(core)
    core.names = ("a", "b")
    await rig.client.refresh()
    assert (await engine.infer(tensor(1), InferenceOptions(model="b"))).model == "b"


async def test_closing_waits_for_what_was_accepted(rig: Rig) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    task = asyncio.create_task(engine.infer(tensor(0), InferenceOptions()))
    await until(lambda: core.asked)
    closing = asyncio.create_task(engine.close(5.0))
    await asyncio.sleep(0)
    core.free.set()
    assert await closing
    assert (await task).model == "m"


async def test_an_engine_that_dies_as_it_connects_is_found_when_it_is_back(rig: Rig) -> None:
    address = rig.address(0)
    link = EngineConnection(rig.context, address, 0, lambda: None, time.monotonic)
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
        rig.open(0, FakeCore())
        await until(lambda: link.status is not None)
    finally:
        link.close()


async def test_a_caller_who_leaves_as_the_engine_is_lost_is_gone(rig: Rig, monkeypatch: Any) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    task = asyncio.create_task(engine.infer(tensor(0), InferenceOptions()))
    await until(lambda: core.asked)

    async def lost(*_: object) -> None:
        raise Disconnected("the engine is not there")

    monkeypatch.setattr(EngineConnection, "_send", lost)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_that_finds_no_connection_leaves_no_error_behind(rig: Rig) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    link = EngineConnection(rig.context, rig.address(0), 0, lambda: None, time.monotonic)
    link.open()  # nobody is there
    spec = RatioSpec(None, 0.0)
    with pytest.raises(Unsent):
        await link.submit(Submit(1, "m", "", spec, 0.0, None, False, 0, (SIZE, SIZE, 3), "uint8", None), b"")
    link.close()
    gc.collect()
    assert unheard == []


async def test_a_front_end_serves_as_soon_as_one_engine_does(rig: Rig) -> None:
    engine = await rig.start(FakeCore(), absent=1)  # the other one never comes
    assert engine.readiness().ready
    assert (await engine.infer(tensor(3), InferenceOptions())).logits.argmax() == 3


async def test_an_engine_that_comes_later_is_asked_too(rig: Rig) -> None:
    first, second = FakeCore(), FakeCore()
    engine = await rig.start(first, absent=1)
    rig.open(1, second)
    while not second.asked:
        await engine.infer(tensor(3), InferenceOptions())
    assert first.asked


class Wedged(EngineServer):
    """An engine whose event loop stands still while `stuck`: its connection is up, and it says nothing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.stuck = False

    async def _send(self, peer: bytes, message: Any) -> None:
        if not self.stuck:
            await super()._send(peer, message)


@pytest.fixture
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunepool.transport.zmq.server.HEARTBEAT_S", 0.02)
    monkeypatch.setattr(EngineConnection.__init__, "__defaults__", (0.04, None))


@pytest.mark.usefixtures("quick_heartbeat")
async def test_what_a_wedged_engine_had_goes_to_another_and_it_is_asked_no_more(rig: Rig) -> None:
    stuck, well = FakeCore(), FakeCore()
    stuck.free.clear()
    engine = await rig.start(stuck, well, servers=Wedged)
    tasks = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(4)]
    await until(lambda: len(stuck.asked) == 2)
    server = rig.servers[0]
    assert isinstance(server, Wedged)
    server.stuck = True
    answers = await asyncio.gather(*tasks)
    assert [answer.logits.argmax() for answer in answers] == [0, 1, 2, 3]
    assert len(well.asked) == 4
    asked = len(stuck.asked)
    await asyncio.gather(*(engine.infer(tensor(i), InferenceOptions()) for i in range(4)))
    assert len(stuck.asked) == asked
    server.stuck = False
    stuck.free.set()
    while len(stuck.asked) == asked:  # it is asked again once it answers again
        await engine.infer(tensor(1), InferenceOptions())
    assert counted(rig.metrics, "ok") == len(well.asked) + len(stuck.asked) - asked


@pytest.mark.usefixtures("quick_heartbeat")
async def test_a_wedged_only_engine_leaves_no_request_hanging(rig: Rig) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core, servers=Wedged)
    task = asyncio.create_task(engine.infer(tensor(7), InferenceOptions()))
    await until(lambda: core.asked)
    server = rig.servers[0]
    assert isinstance(server, Wedged)
    server.stuck = True
    with pytest.raises(EngineUnavailable):
        await task
    assert not engine.readiness().ready
    assert counted(rig.metrics, "engine_unavailable") == 1


@pytest.mark.usefixtures("quick_heartbeat")
async def test_a_malformed_message_costs_no_request_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    tasks = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(3)]
    await until(lambda: len(core.asked) == 3)
    decode, bad = connection.decode_for_frontend, [b"\xc1"]
    monkeypatch.setattr(connection, "decode_for_frontend", lambda frame: decode(bad.pop() if bad else frame))
    await until(lambda: not bad)
    core.free.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.logits.argmax() for answer in answers] == [0, 1, 2]
    assert engine.models()[0].name == "m"


@pytest.mark.usefixtures("quick_heartbeat")
async def test_a_message_that_the_engine_cannot_read_costs_no_request(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can say whose it was: all that this front end has there is sent again."""
    core = FakeCore()
    core.free.clear()
    engine = await rig.start(core)
    first = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(4)]
    await until(lambda: len(core.asked) == 4)
    decode, bad = zmq_server.decode_for_engine, [b"\xc1"]

    def garbled(frame: bytes) -> Any:
        return decode(bad.pop() if bad and isinstance(decode(frame), Submit) else frame)

    monkeypatch.setattr(zmq_server, "decode_for_engine", garbled)
    start = time.monotonic()
    others = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(4, 8)]
    await until(lambda: not bad)
    core.free.set()
    answers = await asyncio.gather(*first, *others)
    assert [answer.logits.argmax() for answer in answers] == list(range(8))
    assert counted(rig.metrics, "ok") == 8
    assert time.monotonic() - start < 1.0


async def test_a_stranger_s_garbage_is_answered_and_harms_nobody(rig: Rig) -> None:
    engine = await rig.start(FakeCore())
    stranger = rig.context.socket(zmq.DEALER)
    stranger.connect(rig.address(0))
    try:
        for frames in ([b"\xc1"], [b""], [encode(Handshake(0))[:-1]], [b"\x80", b"more"]):
            await stranger.send_multipart(frames)
            assert isinstance(decode_for_frontend((await stranger.recv_multipart())[0]), Unreadable)
        assert (await engine.infer(tensor(3), InferenceOptions())).logits.argmax() == 3
    finally:
        stranger.close(0)


@pytest.mark.usefixtures("quick_heartbeat")
async def test_what_a_failed_device_had_goes_to_another_engine_at_once(rig: Rig) -> None:
    """Its own restart, in the same process, would take seconds, or fail for good."""
    failed, well = FakeCore(), FakeCore()
    failed.free.clear()
    well.free.clear()
    engine = await rig.start(failed, well)
    tasks = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(6)]
    await until(lambda: len(failed.asked) == len(well.asked) == 3)
    failed.asked[0].attempts = 1  # the one that ran
    failed.missing = "m: the engine is being restarted"
    start = time.monotonic()
    await until(lambda: len(well.asked) == 6)
    assert time.monotonic() - start < 1.0
    assert failed.cancelled == 3
    assert sorted(request.attempts for request in well.asked) == [0, 0, 0, 0, 0, 1]
    well.free.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.logits.argmax() for answer in answers] == list(range(6))
    assert counted(rig.metrics, "ok") == 6


@pytest.mark.usefixtures("quick_heartbeat")
async def test_where_no_other_engine_is_there_requests_wait_for_the_device(rig: Rig) -> None:
    cores = [FakeCore(), FakeCore()]
    for core in cores:
        core.free.clear()
    engine = await rig.start(*cores)
    tasks = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(2)]
    await until(lambda: all(core.asked for core in cores))
    cores[0].missing = cores[1].missing = "m: the engine is being restarted"
    await until(lambda: not engine.readiness().ready)
    await rig.client.refresh()
    for core in cores:
        core.missing = None
        core.free.set()
    await asyncio.gather(*tasks)
    assert counted(rig.metrics, "ok") == 2


async def test_an_image_that_failed_on_one_device_is_tried_on_another(rig: Rig) -> None:
    class Failing(FakeCore):
        async def submit(self, request: Request) -> Result:
            self.asked.append(request)
            request.attempts += 1
            raise EngineUnavailable("m: the engine is being restarted", retry_after=1.0)

    failing, well = Failing(), FakeCore()
    engine = await rig.start(failing, well)
    answers = [await engine.infer(tensor(i), InferenceOptions()) for i in range(6)]
    assert [answer.logits.argmax() for answer in answers] == list(range(6))
    assert failing.asked
    assert [request.attempts for request in well.asked].count(1) == len(failing.asked)


async def test_a_model_that_an_engine_could_not_load_is_named_and_the_others_answer(rig: Rig) -> None:
    core = FakeCore("a")
    core.failed = {"b": "its weights have changed"}
    engine = await rig.start(core)
    readiness = engine.readiness()
    assert (readiness.ready, readiness.missing) == (
        True,
        ("b: could not be loaded: its weights have changed",),
    )
    assert (await engine.infer(tensor(1), InferenceOptions())).model == "a"
    with pytest.raises(EngineUnavailable, match="b could not be loaded") as caught:
        await engine.infer(tensor(1), InferenceOptions(model="b"))
    assert caught.value.retry_after > 0
    core.names, core.failed = ("a", "b"), {}
    await rig.client.refresh()
    assert engine.readiness().missing == ()
    assert (await engine.infer(tensor(1), InferenceOptions(model="b"))).model == "b"


async def test_without_its_default_model_a_server_is_not_ready_and_the_others_answer(rig: Rig) -> None:
    class Without(FakeCore):
        default_model = "gone"

    core = Without("a")
    core.failed = {"gone": "its weights have changed"}
    engine = await rig.start(core)
    assert not engine.readiness().ready
    assert (await engine.infer(tensor(1), InferenceOptions(model="a"))).model == "a"
    with pytest.raises(EngineUnavailable, match="gone could not be loaded"):
        await engine.infer(tensor(1), InferenceOptions())


async def test_a_replaced_model_answers_with_its_own_labels_only(rig: Rig) -> None:
    """Two engines that are replaced one after the other, under requests: no answer mixes two generations."""
    cores = [FakeCore(classes=10), FakeCore(classes=10)]
    engine = await rig.start(*cores)
    mixed, over = [], asyncio.Event()

    async def ask(value: int) -> None:
        while not over.is_set():
            answer = await engine.classify(picture(), InferenceOptions(top_k=1))
            best = answer.predictions[0]
            mixed.append(best.label != f"class {best.index}")
            inference = await engine.infer(tensor(value), InferenceOptions())
            mixed.append(inference.logits.argmax() != value % len(inference.logits))
            await asyncio.sleep(0)

    asking = [asyncio.create_task(ask(i)) for i in range(5)]
    for generation, classes in (("2", 256), ("3", 10), ("4", 256)):
        for core in cores:
            await asyncio.sleep(0.05)
            core.generation, core.classes = generation, classes
    await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*asking)
    assert mixed
    assert not any(mixed)


async def test_an_engine_whose_device_has_just_failed_costs_no_request(rig: Rig) -> None:
    """Its status says so only some time later."""
    failing, well = FakeCore(), FakeCore()
    engine = await rig.start(failing, well)
    failing.error = EngineUnavailable("m: the engine is being restarted", retry_after=1.0)
    answers = await asyncio.gather(*(engine.infer(tensor(i), InferenceOptions()) for i in range(8)))
    assert [answer.logits.argmax() for answer in answers] == list(range(8))
    assert failing.asked
    assert counted(rig.metrics, "engine_unavailable") is None


async def test_an_image_that_died_twice_on_an_engine_goes_to_no_other(rig: Rig) -> None:
    class Deadly(FakeCore):
        async def submit(self, request: Request) -> Result:
            self.asked.append(request)
            request.attempts = 2
            raise EngineUnavailable("the engine died twice while it ran this image", retry_after=1.0)

    cores = [Deadly(), Deadly()]
    engine = await rig.start(*cores)
    with pytest.raises(EngineUnavailable, match="died twice"):
        await engine.infer(tensor(0), InferenceOptions())
    assert sum(len(core.asked) for core in cores) == 1
    assert rig.metrics.registry.get_sample_value("prunepool_rejected_total", {"model": "m"}) is None


async def test_where_all_engines_refuse_the_caller_is_told(rig: Rig) -> None:
    cores = [FakeCore(), FakeCore()]
    engine = await rig.start(*cores)
    for core in cores:
        core.error = EngineUnavailable("m: the engine is being restarted", retry_after=1.0)
    with pytest.raises(EngineUnavailable, match="being restarted"):
        await engine.infer(tensor(0), InferenceOptions())
    assert [len(core.asked) for core in cores] == [1, 1]


async def test_what_was_not_sent_counts_as_no_death(rig: Rig) -> None:
    """The connection is gone, and the event that says so has not been read."""
    first, second = FakeCore(), FakeCore()
    engine = await rig.start(first, second)
    await rig.lose(0)
    answers = await asyncio.gather(*(engine.infer(tensor(i), InferenceOptions()) for i in range(6)))
    assert [answer.logits.argmax() for answer in answers] == list(range(6))


async def test_what_a_dead_engine_had_is_suspect_to_the_next_one(rig: Rig) -> None:
    first, second = FakeCore(), FakeCore()
    first.free.clear()
    second.free.clear()
    engine = await rig.start(first, second)
    tasks = [asyncio.create_task(engine.infer(tensor(i), InferenceOptions())) for i in range(2)]
    await until(lambda: first.asked and second.asked)
    await rig.lose(0)
    second.free.set()
    await asyncio.gather(*tasks)
    assert [request.attempts for request in second.asked] == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (np.uint8, (1, 1, 3)),
        (np.uint8, (3, SIZE, SIZE)),
        (np.float32, (SIZE, SIZE, 3)),
        (np.float64, (3, SIZE, SIZE)),
    ],
)
async def test_pixels_that_no_device_takes_do_not_reach_one(
    rig: Rig, dtype: str, shape: tuple[int, ...]
) -> None:
    core = FakeCore()
    engine = await rig.start(core)
    request = Request(np.zeros(shape, dtype), RatioSpec(0.0, 0.0), time.monotonic(), None)
    with (
        rig.client.reserve("m", "1", request.ratio_spec, None, 0) as reservation,
        pytest.raises(InvalidParameter, match="pixels"),
    ):
        await reservation.submit(request)
    assert not core.asked
    assert (await engine.infer(tensor(3), InferenceOptions())).logits.argmax() == 3
