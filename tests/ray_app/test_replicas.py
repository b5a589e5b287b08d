"""An ingress before engine replicas, with a handle that stands in for Ray's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from pictures import pictures

from prunepool.errors import EngineUnavailable, InvalidParameter, ModelNotFound, PrunepoolError
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.remote_engine import RemoteConfig
from prunepool.serving.types import Options
from prunepool.testing import FakeEngine, fake_model
from prunepool.transport.messages import (
    Answer,
    Ask,
    Failed,
    Load,
    Offer,
    State,
    decode_for_engine,
    encode,
    failure_of,
    pixels_of,
)
from prunepool.transport.ray import SILENCE_S, ClusterEngine, Replicas
from prunepool.transport.zmq.shared_memory import Arena

SIZE = 4


class Died(Exception):
    """What Ray raises."""


class Response:
    """What a handle's call returns: awaited, or cancelled."""

    def __init__(self, answer: Coroutine[Any, Any, Any]) -> None:
        self._task = asyncio.ensure_future(answer)

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


class Method:
    def __init__(self, call: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> Response:
        return Response(self._call(*arguments))


class Handle:
    """Two replicas in turns."""

    def __init__(self) -> None:
        self.serving: dict[str, list[str]] = {"a": ["m"], "b": ["m"]}
        self.turn = 0
        self.asked: list[tuple[str, Ask]] = []
        self.deaths = 0
        self.silent = False
        self.error: PrunepoolError | None = None
        self.heard = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()
        self.cancelled = 0
        self.state = Method(self._state)
        self.answer = Method(self._answer)

    def _next(self) -> tuple[str, FakeEngine]:
        self.turn += 1
        name = sorted(self.serving)[self.turn % len(self.serving)]
        return name, FakeEngine([fake_model(model, input_size=SIZE) for model in self.serving[name]])

    async def _state(self) -> tuple[str, bytes]:
        if self.silent:
            raise Died
        name, fake = self._next()
        offers = tuple(Offer(info, Preprocess(SIZE, 1.0)) for info in fake.models())
        loads = {info.name: Load(None, 0.0, 0.1) for info in fake.models()}
        return name, encode(State(fake.default_model, loads, offers))

    async def _answer(self, asked: bytes, pixels: bytes) -> tuple[str, bytes]:
        name, fake = self._next()
        ask = decode_for_engine(asked)
        assert isinstance(ask, Ask)
        self.asked.append((name, ask))
        self.heard.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.deaths:
            self.deaths -= 1
            raise Died
        try:
            if self.error is not None:
                raise self.error
            value = pixels_of(ask, pixels)
            inference = await fake.infer(value.tobytes(), ask.options)
            return name, encode(Answer(ask.id, inference, 0.25))
        except PrunepoolError as error:
            return name, encode(Failed(ask.id, failure_of(error)))


@pytest.fixture
def handle() -> Handle:
    return Handle()


@pytest.fixture
async def engine(handle: Handle, metrics: Metrics, photo: bytes) -> AsyncIterator[ClusterEngine]:
    replicas = Replicas(handle, (Died,), 5.0, time.monotonic)
    config = RemoteConfig("auto", None, 1, ImageLimits(10_000), 8, 10.0)
    made = ClusterEngine(replicas, Arena(0), config, metrics)
    await made.start()
    yield made
    await made.close(1.0)


@pytest.fixture
def photo() -> bytes:
    return pictures(1, 16)[0]


async def refused(answer: Awaitable[object]) -> PrunepoolError:
    with pytest.raises(PrunepoolError) as caught:
        await answer
    return caught.value


async def test_answers_come_from_a_replica(engine: ClusterEngine, handle: Handle, photo: bytes) -> None:
    answer = await engine.classify(photo, Options(top_k=2))
    assert answer.model == "m"
    assert len(answer.predictions) == 2
    assert [ask.options.model for _, ask in handle.asked] == ["m"]


async def test_what_travels_is_the_age_of_an_image(
    engine: ClusterEngine, handle: Handle, photo: bytes
) -> None:
    await engine.classify(photo, Options())
    assert 0 <= handle.asked[0][1].arrival < 5, "a clock of this machine would mean nothing to another"


async def test_an_image_of_a_replica_that_died_goes_to_another(
    engine: ClusterEngine, handle: Handle, photo: bytes
) -> None:
    handle.deaths = 1
    assert (await engine.classify(photo, Options())).model == "m"
    assert [name for name, _ in handle.asked] in (["a", "b"], ["b", "a"])


async def test_an_image_that_lost_two_replicas_is_given_up(
    engine: ClusterEngine, handle: Handle, photo: bytes, metrics: Metrics
) -> None:
    handle.deaths = 2
    error = await refused(engine.classify(photo, Options()))
    assert isinstance(error, EngineUnavailable)
    assert "two engine replicas" in error.detail
    assert metrics.rejected.labels("m", "engine_unavailable")._value.get() == 1


async def test_what_a_replica_says_is_passed_on(engine: ClusterEngine, handle: Handle, photo: bytes) -> None:
    handle.error = InvalidParameter("top_k", 0, "more")
    error = await refused(engine.classify(photo, Options()))
    assert isinstance(error, InvalidParameter)
    assert error.extra["parameter"] == "top_k"


async def test_a_caller_who_leaves_is_heard_of_by_the_replica(
    engine: ClusterEngine, handle: Handle, photo: bytes
) -> None:
    handle.free.clear()
    asking = asyncio.create_task(engine.classify(photo, Options()))
    await handle.heard.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await asyncio.sleep(0)
    assert handle.cancelled == 1


async def test_while_models_change_the_replica_that_has_it_is_found(
    engine: ClusterEngine, handle: Handle, photo: bytes
) -> None:
    handle.serving["a"] = ["other"]
    handle.turn = 1  # the next is a, which has it no more
    assert (await engine.classify(photo, Options())).model == "m"
    assert len(handle.asked) > 1


async def test_a_caller_who_names_no_model_gets_the_new_one_when_the_old_is_gone(
    engine: ClusterEngine, handle: Handle, photo: bytes
) -> None:
    handle.serving = {"a": ["other"], "b": ["other"]}
    assert (await engine.classify(photo, Options())).model == "other"


async def test_a_model_that_nobody_serves_is_told_at_once(engine: ClusterEngine, photo: bytes) -> None:
    error = await refused(engine.classify(photo, Options(model="nobody")))
    assert isinstance(error, ModelNotFound)


async def test_no_replica_is_seen_by_probes_and_told_to_callers(
    handle: Handle, metrics: Metrics, photo: bytes
) -> None:
    now = 0.0
    replicas = Replicas(handle, (Died,), 5.0, lambda: now)
    await replicas.look()
    assert replicas.missing("m") is None
    handle.silent = True
    now = SILENCE_S + 1
    await replicas.look()
    assert "no engine replica" in str(replicas.missing("m"))
    with pytest.raises(EngineUnavailable) as caught:
        replicas.drain_s("m")
    assert caught.value.extra["retry_after"] > 0


async def test_what_is_ahead_is_known_from_answers_too(
    handle: Handle, photo: bytes, metrics: Metrics
) -> None:
    handle.serving = {"a": ["m"]}
    replicas = Replicas(handle, (Died,), 5.0, time.monotonic)
    engine = ClusterEngine(
        replicas, Arena(0), RemoteConfig("auto", None, 1, ImageLimits(10_000), 8, 10.0), metrics
    )
    await replicas.look()
    assert replicas.drain_s("m") == 0
    await engine.classify(photo, Options())
    assert replicas.drain_s("m") == 0.25


async def test_a_look_that_fails_is_not_the_last(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunepool.transport.ray.LOOK_EVERY_S", 0.0)
    replicas, state = Replicas(handle, (Died,), 5.0, time.monotonic), handle.state

    async def fails() -> None:
        handle.state = state
        raise RuntimeError("what nobody thought of")

    handle.state = Method(fails)
    await replicas.start()
    assert replicas.missing("m") is None
    replicas.close()
