"""Second looks: when they are taken, what they cost, and that they harm nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from local_service import LocalService

from prunepool.core.core import CoreConfig
from prunepool.core.logits import margin
from prunepool.core.resilience import Resilience
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Batch, Limits, Output
from prunepool.imaging import Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.testing import FakeBackend, FakeCosts, Gate, fake_model

UNSURE, SURE = b"\x00", b"\x01"
#: The best class of an unsure image.
REDUCED, DENSE = 3, 4


class Unsure(FakeBackend):
    """Of an image of zeros it is unsure when reduced, and says otherwise dense."""

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        outcomes = list(super().run(batch, prepared))
        for i, work in enumerate(batch.items):
            logits = np.zeros(10, np.float32)
            unsure = not work.request.pixels.any() and work.ratio > 0
            logits[REDUCED if work.ratio > 0 else DENSE] = 0.1 if unsure else 9.0
            outcomes[i] = Output(logits, outcomes[i].tokens, outcomes[i].gmacs)
        return outcomes


Start = Callable[..., Any]


@pytest.fixture
async def start(metrics: Metrics) -> AsyncIterator[Start]:
    engines: list[LocalService] = []

    async def start(
        backend: Any = Unsure, *, below: float | None = 0.4, clock: Any = time.monotonic, **config: Any
    ) -> LocalService:
        info = fake_model("m")
        model = ServedModel(
            "m", lambda: info, Preprocess(size=4, crop_pct=1.0), FakeCosts(), lambda ratio: ratio, backend
        )
        config.setdefault("resilience", Resilience(first_delay_s=0.0))
        engine = LocalService(
            [model],
            escalate_below=below,
            **config,
            metrics=metrics,
            decode=lambda data, preprocess, limits: np.full((4, 4, 3), data[0], np.uint8),
            clock=clock,
        )
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.close(0.0)


def escalations(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value(
        "prunepool_escalations_total", {"model": "m", "outcome": outcome}
    )


AT_HALF = InferenceOptions(reduction_ratio=0.5)


async def test_an_unsure_answer_is_replaced_by_the_dense_models(start: Start, metrics: Metrics) -> None:
    engine = await start()
    answer = await engine.classify(UNSURE, AT_HALF)
    assert answer.predictions[0].index == DENSE
    assert (answer.reduction.requested, answer.reduction.applied) == (0.5, 0.0)
    assert answer.reduction.reason == "escalated"
    assert escalations(metrics, "changed") == 1


async def test_its_cost_is_that_of_both_looks(start: Start) -> None:
    engine = await start()
    reduction = (await engine.classify(UNSURE, AT_HALF)).reduction
    assert (reduction.gmacs, reduction.macs_saved) == (0.75 + 1.0, 0.0)


async def test_a_sure_answer_is_left_alone(start: Start, metrics: Metrics) -> None:
    engine = await start()
    answer = await engine.classify(SURE, AT_HALF)
    assert (answer.predictions[0].index, answer.reduction.reason) == (REDUCED, "requested")
    assert escalations(metrics, "skipped") == 0


async def test_it_is_off_by_default(start: Start) -> None:
    engine = await start(below=CoreConfig().escalate_below)
    assert (await engine.classify(UNSURE, AT_HALF)).predictions[0].index == REDUCED


async def test_an_image_counts_once(start: Start, metrics: Metrics) -> None:
    engine = await start()
    await engine.classify(UNSURE, AT_HALF)
    labels = {"model": "m", "outcome": "ok"}
    assert metrics.registry.get_sample_value("prunepool_requests_total", labels) == 1


async def test_it_is_not_taken_where_the_deadline_does_not_allow_it(start: Start, metrics: Metrics) -> None:
    seconds = {"now": 0.0}

    class Slow(Unsure):
        """A second a batch, of the test's time."""

        def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
            seconds["now"] += 1.0
            return super().run(batch, prepared)

    engine = await start(Slow, clock=lambda: seconds["now"], limits=Limits(target_s=100.0))
    in_haste = await engine.classify(UNSURE, InferenceOptions(reduction_ratio=0.5, deadline_ms=1900))
    at_leisure = await engine.classify(UNSURE, InferenceOptions(reduction_ratio=0.5, deadline_ms=9000))
    assert [in_haste.reduction.reason, at_leisure.reduction.reason] == ["requested", "escalated"]
    assert escalations(metrics, "skipped") == 1


async def test_it_is_not_taken_by_a_device_that_has_much_to_do(start: Start, metrics: Metrics) -> None:
    """All that are answered at a time want a second look; only as many get one as there is time for."""
    gate = Gate()
    seconds = {"now": 0.0}

    class Slow(Unsure):
        def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
            seconds["now"] += 0.1 * len(batch.items)
            return super().run(batch, prepared)

    limits = Limits(target_s=1.0)
    engine = await start(lambda: Slow(gate=gate), clock=lambda: seconds["now"], limits=limits)
    gate.close()
    tasks = [asyncio.create_task(engine.classify(UNSURE, AT_HALF)) for _ in range(12)]
    await gate.arrived(1)
    gate.open()
    reasons = [(await task).reduction.reason for task in tasks]
    assert reasons.count("escalated") >= 1
    assert reasons.count("requested") >= 5
    assert escalations(metrics, "skipped") == reasons.count("requested")


async def test_a_second_look_that_fails_leaves_the_first_answer(start: Start, metrics: Metrics) -> None:
    def dies_of_dense(batch: Batch) -> BaseException | None:
        return RuntimeError("broken") if batch.items[0].ratio == 0 else None

    engine = await start(lambda: Unsure(fail=dies_of_dense))
    answer = await engine.classify(UNSURE, AT_HALF)
    assert (answer.predictions[0].index, answer.reduction.reason) == (REDUCED, "requested")
    assert escalations(metrics, "skipped") == 1


async def test_no_second_look_is_begun_while_the_server_drains(start: Start) -> None:
    gate = Gate()
    engine = await start(lambda: Unsure(gate=gate))
    gate.close()
    task = asyncio.create_task(engine.classify(UNSURE, AT_HALF))
    await gate.arrived(1)
    engine.begin_drain()
    gate.open()
    assert (await task).reduction.reason == "requested"


@pytest.mark.parametrize(
    ("logits", "expected"),
    [([0.0, 0.0, -99.0], 0.0), ([99.0, 0.0], 1.0), ([5.0], 1.0), ([np.nan, 1.0], 1.0), ([np.inf, 1.0], 1.0)],
)
def test_the_margin_is_between_the_two_likeliest(logits: list[float], expected: float) -> None:
    assert margin(np.array(logits, np.float32)) == pytest.approx(expected)
