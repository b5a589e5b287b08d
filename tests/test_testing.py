from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunepool.core.backend import Backend, OutOfMemory
from prunepool.core.logits import softmax
from prunepool.core.types import Batch, BatchItem, RatioSpec, Request
from prunepool.errors import (
    Draining,
    EngineUnavailable,
    ImageUndecodable,
    InvalidParameter,
    ModelNotFound,
    Overloaded,
)
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Service
from prunepool.testing import FakeBackend, FakeService, Gate, fake_model


def batch(*values: int, ratio: float = 0.0, explain: bool = False) -> Batch:
    requests = [
        Request(np.full((2, 2, 3), v, np.uint8), RatioSpec(ratio, ratio), 0.0, explain=explain)
        for v in values
    ]
    return Batch(tuple(BatchItem(one, ratio, "requested") for one in requests), 1.0)


def run(backend: Backend, one: Batch) -> list[Any]:
    return list(backend.run(one, backend.prepare(one)))


async def test_the_same_bytes_get_the_same_answer() -> None:
    service: Service = FakeService()
    one, other = [await service.classify(b"x", InferenceOptions()) for _ in range(2)]
    assert replace(one, batch=0) == replace(other, batch=0)


async def test_other_bytes_get_another_answer() -> None:
    service = FakeService()
    assert (await service.classify(b"x", InferenceOptions())).predictions != (
        await service.classify(b"y", InferenceOptions())
    ).predictions


async def test_scores_fall_and_sum_to_one() -> None:
    scores = [p.score for p in (await FakeService().classify(b"x", InferenceOptions(top_k=10))).predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)


async def test_calls_are_recorded() -> None:
    service = FakeService()
    await service.classify(b"x", InferenceOptions(top_k=1))
    assert service.calls == [(b"x", InferenceOptions(top_k=1))]


async def test_bad_bytes_are_not_an_image() -> None:
    with pytest.raises(ImageUndecodable):
        await FakeService().classify(b"bad image", InferenceOptions())


async def test_options_are_validated_as_the_real_engine_does() -> None:
    with pytest.raises(InvalidParameter, match="reduction_ratio"):
        await FakeService().classify(b"x", InferenceOptions(reduction_ratio=0.9))


async def test_a_fixed_ratio_is_echoed() -> None:
    reduction = (await FakeService().classify(b"x", InferenceOptions(reduction_ratio=0.5))).reduction
    assert (reduction.requested, reduction.applied, reduction.reason) == (0.5, 0.5, "requested")


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.33, 0.755, 0.87])
async def test_never_more_is_applied_than_asked(ratio: float) -> None:
    reduction = (await FakeService().classify(b"x", InferenceOptions(reduction_ratio=ratio))).reduction
    assert reduction.applied <= ratio


async def test_auto_is_the_default_of_the_model() -> None:
    reduction = (await FakeService().classify(b"x", InferenceOptions())).reduction
    assert (reduction.requested, reduction.applied, reduction.reason) == ("auto", 0.5, "auto:default")


async def test_an_explained_answer_has_a_token_for_every_patch_kept() -> None:
    answer = await FakeService().classify(b"x", InferenceOptions(reduction_ratio=0.5, explain=True))
    assert answer.token_map is not None
    assert len(answer.token_map.tokens) == answer.reduction.tokens[-1] - 1


async def test_the_error_that_was_set_is_raised() -> None:
    service = FakeService(error=Overloaded("full", retry_after=2.0))
    with pytest.raises(Overloaded):
        await service.classify(b"x", InferenceOptions())


async def test_an_error_can_be_taken_back() -> None:
    service = FakeService(error=Overloaded("full", retry_after=2.0))
    service.error = None
    assert (await service.classify(b"x", InferenceOptions())).model == "fake"


async def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        await FakeService().classify(b"x", InferenceOptions(model="other"))


async def test_the_first_model_is_the_default() -> None:
    service = FakeService([fake_model("a"), fake_model("b")])
    assert (await service.classify(b"x", InferenceOptions())).model == "a"


async def test_an_engine_that_is_not_ready_cannot_be_asked() -> None:
    with pytest.raises(EngineUnavailable):
        await FakeService(ready=False).classify(b"x", InferenceOptions())


async def test_starting_makes_it_ready() -> None:
    service = FakeService(ready=False)
    await service.start()
    assert service.readiness().ready


async def test_a_draining_engine_refuses() -> None:
    service = FakeService()
    service.begin_drain()
    with pytest.raises(Draining):
        await service.classify(b"x", InferenceOptions())


async def test_closing_is_remembered() -> None:
    service = FakeService()
    await service.close(1.0)
    assert service.closed


def test_the_highest_logit_is_that_of_the_first_byte() -> None:
    assert [o.logits.argmax() for o in run(FakeBackend(classes=10), batch(3, 12))] == [3, 2]


def test_tokens_add_up() -> None:
    (outcome,) = run(FakeBackend(), batch(1, ratio=0.755))
    assert outcome.tokens[0] - outcome.tokens[-1] == outcome.pruned + outcome.pooled == 147


def test_batches_are_recorded() -> None:
    backend = FakeBackend()
    run(backend, one := batch(1))
    assert backend.batches == [one]


def test_a_batch_over_the_room_does_not_fit() -> None:
    with pytest.raises(OutOfMemory):
        run(FakeBackend(out_of_memory_above=1), batch(1, 2))


def test_a_batch_within_the_room_fits() -> None:
    assert len(run(FakeBackend(out_of_memory_above=2), batch(1, 2))) == 2


def test_it_fails_when_told_to() -> None:
    with pytest.raises(ZeroDivisionError):
        run(FakeBackend(fail=lambda one: ZeroDivisionError()), batch(1))


def test_it_fails_to_warm_up_when_told_to() -> None:
    with pytest.raises(ValueError, match="cold"):
        FakeBackend(warm_up_error=ValueError("cold")).warm_up()


async def test_a_closed_gate_stops_a_batch_until_it_opens() -> None:
    gate = Gate(is_open=False)
    backend = FakeBackend(gate=gate)
    running = asyncio.create_task(asyncio.to_thread(run, backend, batch(1)))
    await gate.arrived(1)
    stopped = not running.done()
    gate.open()
    await running
    assert stopped


async def test_a_closed_gate_lets_through_as_many_as_told() -> None:
    gate = Gate(is_open=False)
    done: list[int] = []
    threads = [threading.Thread(target=lambda i=i: (gate.pass_through(), done.append(i))) for i in range(3)]
    for thread in threads:
        thread.start()
    await gate.arrived(3)
    gate.let(2)
    while len(done) < 2:  # noqa: ASYNC110 - it is other threads that pass
        await asyncio.sleep(0)
    passed = len(done)
    gate.open()
    for thread in threads:
        thread.join()
    assert passed == 2


async def test_waiting_for_arrivals_in_vain_is_an_error() -> None:
    with pytest.raises(TimeoutError, match="0 of 1 batches"):
        await Gate().arrived(1, timeout_s=0.0)


def tensor(value: float, size: int = 224) -> np.ndarray:
    return np.full((3, size, size), value, np.float32)


async def test_the_same_tensor_gets_the_same_logits() -> None:
    service: Service = FakeService()
    first, again = [await service.infer(tensor(1), InferenceOptions()) for _ in range(2)]
    assert first.logits.tolist() == again.logits.tolist()


async def test_an_inference_says_what_a_classification_does() -> None:
    service = FakeService()
    logits = (await service.infer(b"x", InferenceOptions())).logits
    predictions = (await service.classify(b"x", InferenceOptions(top_k=1))).predictions
    assert predictions[0].index == logits.argmax()
    assert predictions[0].score == pytest.approx(softmax(logits).max())


@pytest.mark.parametrize("image", [tensor(0, 2), tensor(np.nan), tensor(0).astype(np.float64)])
async def test_tensors_are_validated_as_the_real_engine_does(image: np.ndarray) -> None:
    with pytest.raises(InvalidParameter, match="image must be"):
        await FakeService().infer(image, InferenceOptions())


async def test_each_image_is_a_batch_of_its_own() -> None:
    service = FakeService()
    assert [(await service.infer(b"x", InferenceOptions())).batch for _ in range(2)] == [0, 1]
