"""An ingress before engine replicas, with a handle that stands in for Ray's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable

import numpy as np
import pytest
from fake_core import FakeCore
from pictures import pictures
from ray_handle import Died, Handle, Method

from prunepool.core.types import RatioSpec, Request
from prunepool.errors import EngineUnavailable, InvalidParameter, ModelNotFound, ModelReplaced, PrunepoolError
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.serving.service import InferenceService, ServiceConfig
from prunepool.transport.early_refusal import FrontendLimits
from prunepool.transport.ray import SILENCE_S, RayCoreClient

LIMITS = FrontendLimits(8, 10.0)


@pytest.fixture
def handle() -> Handle:
    return Handle()


@pytest.fixture
async def engine(handle: Handle, metrics: Metrics) -> AsyncIterator[InferenceService]:
    client = RayCoreClient(handle, (Died,), 5.0, LIMITS, time.monotonic)
    made = InferenceService(client, ServiceConfig(decode_threads=1), metrics)
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


async def test_answers_come_from_a_replica(engine: InferenceService, handle: Handle, photo: bytes) -> None:
    answer = await engine.classify(photo, InferenceOptions(top_k=2))
    assert answer.model == "m"
    assert len(answer.predictions) == 2
    assert [submit.model for _, submit in handle.asked] == ["m"]


async def test_what_travels_is_the_age_of_an_image(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    await engine.classify(photo, InferenceOptions())
    assert -5 < handle.asked[0][1].arrival <= 0, "a clock of this machine would mean nothing to another"


async def test_an_image_of_a_replica_that_died_goes_to_another(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    handle.deaths = 1
    assert (await engine.classify(photo, InferenceOptions())).model == "m"
    assert [name for name, _ in handle.asked] in (["a", "b"], ["b", "a"])


async def test_an_image_that_lost_two_replicas_is_given_up(
    engine: InferenceService, handle: Handle, photo: bytes, metrics: Metrics
) -> None:
    handle.deaths = 2
    error = await refused(engine.classify(photo, InferenceOptions()))
    assert isinstance(error, EngineUnavailable)
    assert "two engine replicas" in error.detail
    assert metrics.requests.labels("m", "engine_unavailable")._value.get() == 1


async def test_what_a_replica_says_is_passed_on(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    for core in handle.replicas.values():
        core.error = InvalidParameter("top_k", 0, "more")
    error = await refused(engine.classify(photo, InferenceOptions()))
    assert isinstance(error, InvalidParameter)
    assert error.extra["parameter"] == "top_k"


async def test_a_caller_who_leaves_is_heard_of_by_the_replica(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    for core in handle.replicas.values():
        core.free.clear()
    asking = asyncio.create_task(engine.classify(photo, InferenceOptions()))
    await handle.heard.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await asyncio.sleep(0)
    assert sum(core.cancelled for core in handle.replicas.values()) == 1


async def test_while_models_change_the_replica_that_has_it_is_found(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    handle.replicas["a"] = FakeCore("other")
    handle.turn = 1  # the next is a, which has it no more
    assert (await engine.classify(photo, InferenceOptions())).model == "m"
    assert len(handle.asked) > 1


async def test_a_caller_who_names_no_model_gets_the_new_one_when_the_old_is_gone(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    handle.replicas = {"a": FakeCore("other"), "b": FakeCore("other")}
    assert (await engine.classify(photo, InferenceOptions())).model == "other"


async def test_a_model_that_nobody_serves_is_told_at_once(engine: InferenceService, photo: bytes) -> None:
    error = await refused(engine.classify(photo, InferenceOptions(model="nobody")))
    assert isinstance(error, ModelNotFound)


async def test_a_replaced_model_answers_for_what_the_new_one_is(
    engine: InferenceService, handle: Handle, photo: bytes
) -> None:
    handle.replicas["a"] = FakeCore(generation="2", classes=10)
    handle.replicas["b"] = FakeCore(generation="2", classes=10)
    answer = await engine.classify(photo, InferenceOptions(top_k=1))
    assert answer.predictions[0].index < 10


async def test_what_a_replica_refuses_is_known_to_be_out_of_date(handle: Handle) -> None:
    """With many replicas a report is seconds old, and the most of them would outvote those that were replaced."""
    handle.replicas = {name: FakeCore() for name in "abcd"}
    client = RayCoreClient(handle, (Died,), 5.0, LIMITS, time.monotonic)
    for _ in handle.replicas:
        await client.refresh()
    handle.replicas = {name: FakeCore(generation="2") for name in "abcd"}
    await client.refresh()
    assert client.offers()["m"].generation == "1"
    spec = RatioSpec(0.0, 0.5)
    with (
        client.reserve("m", "1", spec, None, 0) as reservation,
        pytest.raises(ModelReplaced),
    ):
        await reservation.submit(Request(np.zeros((4, 4, 3), np.uint8), spec, 0.0))
    assert client.offers()["m"].generation == "2"
    assert len(handle.asked) <= 4
    assert client.loads()["m"].missing is None


async def test_no_replica_is_seen_by_probes_and_told_to_callers(handle: Handle) -> None:
    now = 0.0
    client = RayCoreClient(handle, (Died,), 5.0, LIMITS, lambda: now)
    await client.refresh()
    assert client.loads()["m"].missing is None
    handle.silent = True
    now = SILENCE_S + 1
    await client.refresh()
    assert "no engine replica" in str(client.loads()["m"].missing)
    with (
        pytest.raises(EngineUnavailable) as caught,
        client.reserve("m", "1", RatioSpec(0.0, 0.0), None, 1),
    ):
        pass
    assert caught.value.extra["retry_after"] > 0


async def test_what_is_ahead_is_known_from_answers_too(
    handle: Handle, photo: bytes, metrics: Metrics
) -> None:
    handle.replicas = {"a": FakeCore()}
    client = RayCoreClient(handle, (Died,), 5.0, LIMITS, time.monotonic)
    engine = InferenceService(client, ServiceConfig(decode_threads=1), metrics)
    await client.refresh()
    assert client.loads()["m"].drain_s == 0
    await engine.classify(photo, InferenceOptions())
    assert client.loads()["m"].drain_s == 0.25
    await engine.close(0.0)


async def test_a_status_request_that_fails_is_not_the_last(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunepool.transport.ray.STATUS_EVERY_S", 0.0)
    client, status = RayCoreClient(handle, (Died,), 5.0, LIMITS, time.monotonic), handle.status

    async def fails() -> None:
        handle.status = status
        raise RuntimeError("what nobody thought of")

    handle.status = Method(fails)
    await client.start()
    assert client.loads()["m"].missing is None
    await client.close(0.0)
