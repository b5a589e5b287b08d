"""Models that come and go while others are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from local_service import LocalService

from prunepool.core.core import Core, CoreConfig
from prunepool.core.cost_model import Effort, TimedBatch
from prunepool.core.resilience import Resilience
from prunepool.core.served_model import ServedModel
from prunepool.errors import EngineUnavailable, InvalidParameter, ModelNotFound, RequestError
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.testing import FakeBackend, FakeCosts, Gate, fake_model

PREPROCESS = Preprocess(size=4, crop_pct=1.0)


def first_byte(data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
    return np.full((preprocess.size, preprocess.size, 3), data[0], np.uint8)


class Made:
    """A model, and the backends that were made for it."""

    def __init__(self, name: str, generation: str = "", **backend: Any) -> None:
        self.backends: list[FakeBackend] = []
        self.backend = backend
        info = fake_model(name)
        self.model = ServedModel(
            name, lambda: info, PREPROCESS, FakeCosts(), lambda ratio: ratio, self.make, generation
        )

    def make(self) -> FakeBackend:
        self.backends.append(FakeBackend(**self.backend))
        return self.backends[-1]


@pytest.fixture
async def serve(metrics: Metrics) -> AsyncIterator[Callable[..., Any]]:
    engines: list[LocalService] = []

    async def serve(*made: Made, **config: Any) -> LocalService:
        config.setdefault("resilience", Resilience(first_delay_s=0.0))
        models = [one.model for one in made]
        engines.append(LocalService(models, metrics, decode=first_byte, **config))
        await engines[-1].start()
        return engines[-1]

    yield serve
    for engine in engines:
        await engine.close(0.0)


def up(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value("prunepool_engine_up", {"model": name})


async def test_a_loaded_model_answers(serve: Any, metrics: Metrics) -> None:
    engine = await serve(Made("a"))
    await engine.load(Made("b").model)
    assert (await engine.classify(bytes([3]), InferenceOptions(model="b"))).predictions[0].index == 3
    assert [info.name for info in engine.models() if info.ready] == ["a", "b"]
    assert (engine.default_model, up(metrics, "b")) == ("a", 1)


async def test_a_model_that_does_not_get_warm_leaves_what_was_there(serve: Any, metrics: Metrics) -> None:
    engine = await serve(Made("a"))
    with pytest.raises(RuntimeError, match="no such device"):
        await engine.load(Made("a", "2", warm_up_error=RuntimeError("no such device")).model)
    assert (await engine.classify(bytes([3]), InferenceOptions())).predictions[0].index == 3
    assert (up(metrics, "a"), engine.readiness().ready) == (1, True)


async def test_a_model_that_cannot_do_the_default_ratio_is_not_loaded(serve: Any) -> None:
    engine = await serve(Made("a"), default_ratio=0.5)
    unable = Made("b")
    info = fake_model("b", max_reduction_ratio=0.3)
    model = ServedModel("b", lambda: info, PREPROCESS, FakeCosts(), lambda ratio: ratio, unable.make)
    with pytest.raises(InvalidParameter, match="for b"):
        await engine.load(model)
    assert not unable.backends


async def test_a_replaced_model_answers_what_it_had_accepted_and_is_then_freed(serve: Any) -> None:
    gate = Gate(is_open=False)
    old, new = Made("a", "1", gate=gate), Made("a", "2")
    engine = await serve(old)
    accepted = asyncio.create_task(engine.classify(bytes([3]), InferenceOptions()))
    await gate.arrived(1)
    loading = asyncio.create_task(engine.load(new.model))
    while not engine.core.serves(new.model):  # noqa: ASYNC110 - another thread makes it warm
        await asyncio.sleep(0)
    assert (await engine.classify(bytes([5]), InferenceOptions())).predictions[0].index == 5
    assert not accepted.done()
    assert not old.backends[0].closed
    gate.open()
    assert (await accepted).predictions[0].index == 3
    await loading
    assert old.backends[0].closed
    assert len(new.backends[0].batches) == 1


async def test_gauges_are_those_of_the_model_that_answers(serve: Any, metrics: Metrics) -> None:
    engine = await serve(Made("a", "1"))
    seen: list[float | None] = []

    class Watching(FakeBackend):
        def warm_up(self) -> None:
            seen.append(up(metrics, "a"))

    info = fake_model("a")
    model = ServedModel("a", lambda: info, PREPROCESS, FakeCosts(), lambda ratio: ratio, Watching, "2")
    await engine.load(model)
    assert (seen, up(metrics, "a")) == ([1], 1)


async def test_an_unloaded_model_refuses_answers_what_it_had_accepted_and_is_freed(
    serve: Any, metrics: Metrics
) -> None:
    gate = Gate(is_open=False)
    b = Made("b", gate=gate)
    engine = await serve(Made("a"), b)
    accepted = asyncio.create_task(engine.classify(bytes([3]), InferenceOptions(model="b")))
    await gate.arrived(1)
    unloading = asyncio.create_task(engine.unload("b"))
    await asyncio.sleep(0)
    with pytest.raises(ModelNotFound, match="there are: a"):
        await engine.classify(bytes([3]), InferenceOptions(model="b"))
    gate.open()
    assert (await accepted).predictions[0].index == 3
    await unloading
    assert b.backends[0].closed
    names = {
        sample.name
        for family in metrics.registry.collect()
        if family.type == "gauge"
        for sample in family.samples
        if sample.labels.get("model") == "b"
    }
    assert not names
    assert engine.readiness().ready


async def test_the_default_model_cannot_be_unloaded_until_another_is(serve: Any) -> None:
    engine = await serve(Made("a"), Made("b"))
    with pytest.raises(RequestError, match="a answers requests that name no model"):
        await engine.unload("a")
    engine.core.set_default("b")
    await engine.unload("a")
    assert (await engine.classify(bytes([3]), InferenceOptions())).model == "b"


async def test_closing_also_ends_a_model_that_is_being_let_go(serve: Any) -> None:
    gate = Gate(is_open=False)
    b = Made("b", gate=gate)
    engine = await serve(Made("a"), b)
    accepted = asyncio.create_task(engine.classify(bytes([3]), InferenceOptions(model="b")))
    await gate.arrived(1)
    unloading = asyncio.create_task(engine.unload("b"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close(10.0))
    await asyncio.sleep(0)
    gate.open()
    assert await closing
    assert (await accepted).predictions[0].index == 3
    await unloading


@pytest.mark.parametrize(("dense_gmacs", "held"), [(FakeCosts().gmacs(0.0), True), (17.5, False)])
async def test_what_another_model_of_its_name_was_timed_with_does_not_hold(
    metrics: Metrics, dense_gmacs: float, held: bool
) -> None:
    before = (TimedBatch(Effort(1, dense_gmacs, 0, 0), 99.0),)
    engine = LocalService(
        [Made("a").model],
        metrics=metrics,
        decode=first_byte,
        profiles={"a": before},
    )
    await engine.start()
    assert (engine.core.entries[0].scheduler.warm_up_profile == before) is held
    await engine.close(0.0)


async def test_a_server_starts_with_what_loads_and_says_what_does_not(serve: Any, metrics: Metrics) -> None:
    bad = Made("b", warm_up_error=RuntimeError("no such device"))
    engine = await serve(Made("a"), bad, Made("c"))
    assert [info.name for info in engine.models()] == ["a", "c"]
    readiness = engine.readiness()
    assert (readiness.ready, dict(readiness.failures)) == (True, {"b": "RuntimeError: no such device"})
    assert (up(metrics, "b"), bad.backends[0].closed) == (0, True)
    with pytest.raises(EngineUnavailable, match="b could not be loaded"):
        await engine.classify(bytes([3]), InferenceOptions(model="b"))
    bad.backend = {}
    await engine.load(bad.model)
    assert (await engine.classify(bytes([3]), InferenceOptions(model="b"))).predictions[0].index == 3
    assert (engine.readiness().missing, up(metrics, "b")) == ((), 1)


async def test_a_model_that_failed_can_be_unloaded_and_leaves_nothing(serve: Any, metrics: Metrics) -> None:
    engine = await serve(Made("a"), Made("b", warm_up_error=RuntimeError("no such device")))
    await engine.unload("b")
    assert (engine.readiness().missing, up(metrics, "b")) == ((), None)
    with pytest.raises(ModelNotFound):
        await engine.unload("b")


async def test_a_server_whose_default_model_does_not_load_does_not_start(serve: Any) -> None:
    other = Made("b")
    with pytest.raises(RuntimeError, match="no such device"):
        await serve(Made("a", warm_up_error=RuntimeError("no such device")), other)
    assert not other.backends


async def test_a_successor_serves_what_loads_also_without_its_default(metrics: Metrics) -> None:
    def core(*made: Made) -> Core:
        models = [one.model for one in made]
        return Core(models, config=CoreConfig(resilience=Resilience(first_delay_s=0.0)), metrics=metrics)

    bad = Made("a", warm_up_error=RuntimeError("no such device"))
    there = core(bad, Made("b"))
    await there.start(needs_default=False)
    assert [entry.model.name for entry in there.entries] == ["b"]
    assert (there.default_model, list(there.failures)) == ("a", ["a"])
    there.set_default("a")  # as it converges
    bad.backend = {}
    await there.prepare(bad.model)
    await there.commit("a")
    assert ([entry.model.name for entry in there.entries], dict(there.failures)) == (["b", "a"], {})
    await there.close(0.0)
    with pytest.raises(RuntimeError, match="no such device"):
        await core(Made("a", warm_up_error=RuntimeError("no such device"))).start(needs_default=False)
