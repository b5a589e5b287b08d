from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from prunepool.core.cost_model import Effort, TimedBatch
from prunepool.core.device_share import FairLock, ModelBacklog, SharedDevice
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.ratio_policy import DefaultRatio
from prunepool.core.scheduler import Scheduler
from prunepool.core.types import Batch, BatchItem, Limits, RatioSpec, Request
from prunepool.metrics import Metrics
from prunepool.testing import FakeBackend, FakeCosts, Gate, fake_served

DENSE = RatioSpec(0.0, 0.0)
TIMEOUT_S = 30.0


def in_thread(item: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=item, daemon=True)
    thread.start()
    return thread


def test_a_free_device_is_acquired_at_once() -> None:
    lock = FairLock()
    assert lock.ended == -math.inf
    assert lock.acquire("a")
    lock.release("a", 3.0)
    assert lock.ended == 3.0


def test_the_lock_is_acquired_in_order() -> None:
    lock, order = FairLock(), []
    assert lock.acquire("first")
    threads = []
    for name in "abc":
        asked = threading.Event()

        def acquire(name: str = name, asked: threading.Event = asked) -> None:
            asked.set()
            assert lock.acquire(name)
            order.append(name)
            lock.release(name, 1.0)

        threads.append(in_thread(acquire))
        asked.wait(TIMEOUT_S)
        while len(lock._queue) < len(threads) + 1 - len(order):
            pass
    lock.release("first", 0.5)
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert order == ["a", "b", "c"]


def test_a_lock_released_for_a_worker_that_hangs_goes_to_the_next() -> None:
    lock, got = FairLock(), []
    assert lock.acquire("hangs")
    waiting = in_thread(lambda: got.append(lock.acquire("next")))
    lock.release("hangs", 1.0)
    waiting.join(TIMEOUT_S)
    assert got == [True]
    lock.release("hangs", 9.0)  # it has come back after all, and holds nothing
    assert lock.ended == 1.0


def test_a_waiter_released_meanwhile_does_not_get_the_lock() -> None:
    lock, got = FairLock(), []
    assert lock.acquire("runs")
    waiting = in_thread(lambda: got.append(lock.acquire("waits")))
    while len(lock._queue) < 2:
        pass
    lock.release("waits", 1.0)
    waiting.join(TIMEOUT_S)
    assert got == [False]


def test_a_holder_that_takes_too_long_is_passed_over() -> None:
    lock = FairLock(hold_timeout_s=0.01)
    assert lock.acquire("hangs")
    assert lock.acquire("next")
    lock.release("next", 1.0)
    assert lock.ended == -math.inf  # the device has not been free
    lock.release("hangs", 2.0)
    assert lock.ended == 2.0


def test_a_holder_that_takes_too_long_is_waited_for_once() -> None:
    lock = FairLock(hold_timeout_s=0.2)
    assert lock.acquire("hangs")
    began = time.monotonic()
    for _ in range(20):
        assert lock.acquire("next")
        lock.release("next", 1.0)
    assert time.monotonic() - began < 10 * 0.2
    lock.release("hangs", 2.0)
    assert lock.ended == 2.0
    assert lock.acquire("hangs")


def test_beside_a_holder_that_takes_too_long_the_lock_is_still_fair() -> None:
    lock, got = FairLock(hold_timeout_s=0.01), []
    assert lock.acquire("hangs")
    assert lock.acquire("a")
    lock._hold_timeout_s = TIMEOUT_S
    waiting = in_thread(lambda: got.append(lock.acquire("b")))
    while len(lock._queue) < 2:
        pass
    assert not got
    lock.release("a", 1.0)
    waiting.join(TIMEOUT_S)
    assert got == [True]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 1.0)), max_size=60))
def test_the_others_share_is_one(batches: list[tuple[str, float]]) -> None:
    device, now = SharedDevice(), 0.0
    for name in "ab":
        device.join(name, lambda: ModelBacklog(0.0, 0.0))
    for name, seconds in batches:
        now += seconds
        device.used(name, seconds, now)
    assert 0.0 <= device.taken("a", now) + device.taken("b", now) <= 1.2
    assert device.taken("a", now + 100.0) < 1e-6


def test_a_device_that_two_share_evenly_is_half_taken() -> None:
    device, now = SharedDevice(), 0.0
    for name in "ab":
        device.join(name, lambda: ModelBacklog(0.0, 0.0))
    for _ in range(300):
        for name in "ab":
            now += 0.05
            device.used(name, 0.05, now)
    assert device.taken("a", now) == pytest.approx(0.5, abs=0.05)
    device.leave("b")
    assert device.taken("a", now) == 0.0


def test_others_are_everybody_else() -> None:
    device = SharedDevice()
    device.join("a", lambda: ModelBacklog(1.0, 0.5))
    device.join("b", lambda: ModelBacklog(2.0, 0.25))
    assert device.others("a") == (ModelBacklog(2.0, 0.25),)
    device.leave("b")
    assert device.others("a") == ()


def planner() -> Planner:
    """An image takes a second, and a run has no more than two."""
    found = Planner(FakeCosts(), DefaultRatio(0.0), Limits(max_batch_size=2))
    items = [Effort(1, images * FakeCosts().gmacs(0.0), 0, 0) for images in (1, 2)]
    found.cost_model.fit(
        [TimedBatch(item, float(images)) for item, images in zip(items, (1, 2), strict=True)]
    )
    return found


def batch(images: int) -> Batch:
    items = [
        BatchItem(Request(np.zeros((4, 4, 3), np.uint8), DENSE, 0.0), 0.0, "requested") for _ in range(images)
    ]
    return Batch(tuple(items), 1.0)


@pytest.mark.parametrize(
    ("backlog", "extra"),
    [
        (ModelBacklog(0.0, 0.0), 0.0),
        (ModelBacklog(0.5, 0.5), 0.5),  # all that it has
        (
            ModelBacklog(90.0, 0.5),
            1.5,
        ),  # a run of its own before each of ours: one that is given, two that wait
    ],
)
def test_other_models_run_a_batch_before_each_of_ours(backlog: ModelBacklog, extra: float) -> None:
    found = planner()
    device = DeviceState([batch(2)], None, others=(backlog,))
    arriving = Counter({DENSE: 3})
    assert found.drain_s(0.0, device=device, arriving=arriving) == pytest.approx(2.0 + 3.0 + extra)
    assert found.backlog(0.0, device=device, arriving=arriving) == pytest.approx((5.0, 2.0))


def test_a_batch_that_waits_for_the_lock_does_not_come_closer_to_its_end() -> None:
    found = planner()
    assert found.busy_s(DeviceState([batch(2)], None), 10.0) == pytest.approx(2.0)
    assert found.busy_s(DeviceState([batch(2)], 9.5), 10.0) == pytest.approx(1.5)


class Alone(FakeBackend):
    """Sees whether anybody else runs on the device."""

    now = 0
    most = 0
    lock = threading.Lock()

    def run(self, batch: Batch, prepared: object) -> object:  # type: ignore[override]
        with Alone.lock:
            Alone.now += 1
            Alone.most = max(Alone.most, Alone.now)
        try:
            return super().run(batch, prepared)
        finally:
            with Alone.lock:
                Alone.now -= 1


@pytest.fixture
def alone() -> type[Alone]:
    Alone.now = Alone.most = 0
    return Alone


async def test_two_models_never_run_at_once(alone: type[Alone]) -> None:
    device, metrics = SharedDevice(), Metrics(CollectorRegistry())
    schedulers = [
        Scheduler(
            fake_served(name, alone),
            policy=DefaultRatio(0.0),
            metrics=metrics,
            device=device,
        )
        for name in ("one", "other")
    ]
    for scheduler in schedulers:
        await scheduler.start()
    alone.most = 0
    request = np.zeros((4, 4, 3), np.uint8)
    asked = [one.submit(Request(request, DENSE, 0.0)) for _ in range(50) for one in schedulers]
    assert len(await asyncio.gather(*asked)) == 100
    assert alone.most == 1
    for scheduler in schedulers:
        await scheduler.close(TIMEOUT_S)
    assert device.others(None) == ()


async def test_a_device_that_another_model_has_work_for_is_not_idle() -> None:
    device, metrics, gate = SharedDevice(), Metrics(CollectorRegistry()), Gate()
    one, other = (
        Scheduler(
            fake_served(name, backend),
            policy=DefaultRatio(0.0),
            metrics=metrics,
            device=device,
        )
        for name, backend in (("one", FakeBackend), ("other", lambda: FakeBackend(gate=gate)))
    )
    for scheduler in (one, other):
        await scheduler.start()
    assert one.idle
    gate.close()
    asked = asyncio.create_task(other.submit(Request(np.zeros((4, 4, 3), np.uint8), DENSE, 0.0)))
    await asyncio.sleep(0)
    assert not one.idle
    gate.open()
    await asked
    assert one.idle
    for scheduler in (one, other):
        await scheduler.close(TIMEOUT_S)
