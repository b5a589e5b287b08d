"""Sampled answers against the dense model, with a device that a test makes busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from prunepool.core.shadow import Shadow
from prunepool.core.types import Output, Request, Result
from prunepool.errors import EngineUnavailable
from prunepool.metrics import Metrics

PIXELS = np.zeros((4, 4, 3), np.uint8)


def answer(best: int, ratio: float) -> Result:
    logits = np.zeros(10, np.float32)
    logits[best] = 1
    return Result(Output(logits, (197,), 1.0), "", ratio, ratio, "requested", 0, 1, 0.0, 0.25)


class Device:
    """Idle or not as told; what it is given waits for the test's answer."""

    def __init__(self) -> None:
        self.idle = True
        self.given: list[tuple[Request, asyncio.Future[Result]]] = []
        self.call: Callable[[], object] = lambda: None

    def when_idle(self, callback: Callable[[], object]) -> None:
        self.call = callback

    def spare(self, request: Request) -> asyncio.Future[Result]:
        assert self.idle
        self.idle = False
        future = asyncio.get_running_loop().create_future()
        self.given.append((request, future))
        return future

    async def say(self, result: Result | Exception) -> None:
        """Answer the last image."""
        self.idle = True
        if isinstance(result, Exception):
            self.given[-1][1].set_exception(result)
        else:
            self.given[-1][1].set_result(result)
        await asyncio.sleep(0)


@pytest.fixture
def device() -> Device:
    return Device()


def shadow(device: Any, metrics: Metrics, share: float = 1.0) -> Shadow:
    return Shadow(device, "m", share, metrics=metrics, random=Random(0), clock=lambda: 1.0)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"prunepool_shadow_{name}", {"model": "m", **labels})


async def test_a_reduced_answer_is_compared_with_the_dense_one(device: Device, metrics: Metrics) -> None:
    watching = shadow(device, metrics)
    for dense in (3, 3, 4):
        watching.offer(PIXELS, answer(3, 0.755))
        await device.say(answer(dense, 0.0))
    assert sample(metrics, "images_total", reduction="0.7-0.8", agrees="true") == 2
    assert sample(metrics, "images_total", reduction="0.7-0.8", agrees="false") == 1
    assert sample(metrics, "agreement", reduction="0.7-0.8") == pytest.approx(2 / 3)
    assert sample(metrics, "seconds_total") == 0.75


async def test_the_dense_models_own_answers_are_not_run_again(device: Device, metrics: Metrics) -> None:
    shadow(device, metrics).offer(PIXELS, answer(3, 0.0))
    assert not device.given


async def test_it_is_run_dense(device: Device, metrics: Metrics) -> None:
    shadow(device, metrics).offer(PIXELS, answer(3, 0.5))
    assert device.given[0][0].ratio_spec.requested == 0.0


async def test_a_busy_device_is_left_alone_until_it_is_idle(device: Device, metrics: Metrics) -> None:
    device.idle = False
    shadow(device, metrics).offer(PIXELS, answer(3, 0.5))
    assert not device.given
    device.idle = True
    device.call()
    assert len(device.given) == 1


async def test_one_image_at_a_time(device: Device, metrics: Metrics) -> None:
    watching = shadow(device, metrics)
    for _ in range(3):
        watching.offer(PIXELS, answer(3, 0.5))
    assert len(device.given) == 1
    await device.say(answer(3, 0.0))
    assert len(device.given) == 2


async def test_under_load_samples_are_dropped_and_counted(device: Device, metrics: Metrics) -> None:
    device.idle = False
    watching = shadow(device, metrics)
    for _ in range(100):
        watching.offer(PIXELS, answer(3, 0.5))
    assert sample(metrics, "dropped_total") == 100 - 32


async def test_an_image_that_failed_says_nothing_of_agreement(device: Device, metrics: Metrics) -> None:
    shadow(device, metrics).offer(PIXELS, answer(3, 0.5))
    await device.say(EngineUnavailable("died", retry_after=1.0))
    assert sample(metrics, "dropped_total") == 1
    assert sample(metrics, "agreement", reduction="0.5-0.6") is None


async def test_the_share_that_was_asked_for_is_sampled(device: Device, metrics: Metrics) -> None:
    watching = shadow(device, metrics, 0.1)
    for _ in range(1000):
        watching.offer(PIXELS, answer(3, 0.5))
        if not device.idle:
            await device.say(answer(3, 0.0))
    assert 70 <= len(device.given) <= 130


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_mean_follows_what_comes(agreements: list[bool]) -> None:
    async def run() -> float | None:
        device, metrics = Device(), Metrics(CollectorRegistry())
        watching = shadow(device, metrics)
        for agrees in agreements:
            watching.offer(PIXELS, answer(3, 0.5))
            await device.say(answer(3 if agrees else 4, 0.0))
        return sample(metrics, "agreement", reduction="0.5-0.6")

    mean = asyncio.run(run())
    assert mean is not None
    assert 0 <= mean <= 1
    if len(agreements) <= 50:
        assert mean == pytest.approx(sum(agreements) / len(agreements))
