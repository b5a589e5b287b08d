"""A worker over a device that computes beside it: one batch is launched while another is computed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from prunepool.core.backend import OutOfMemory
from prunepool.core.device_share import FairLock
from prunepool.core.events import BatchReport, Ended, Event, Ready
from prunepool.core.profiling import WARM_UP
from prunepool.core.types import Batch, BatchItem, Limits, Output, RatioSpec, Request
from prunepool.core.worker import Worker
from prunepool.errors import EngineUnavailable
from prunepool.testing import FakeBackend, FakeCosts


class FakeAsynchronousBackend(FakeBackend):
    """Its device finishes a batch when a test says so, or after so many looks; without, when it is waited for."""

    def __init__(
        self,
        classes: int = 256,
        *,
        room: int = 9,
        held: bool = False,
        error: Exception | None = None,
        unlaunchable: int | None = None,
        looks: int = 0,
        poll_s: float = 0.0002,
        orders_models: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(classes, **options)
        self.poll_s = poll_s
        self.orders_models = orders_models
        self._looks = Counter[int]()
        self._least_looks = looks
        self._unlaunchable = unlaunchable
        self.log: SimpleQueue[str] = SimpleQueue()
        self.finished = 0 if held else 10**6
        self._launched = 0
        self._most = room
        self._error = error

    def launch(self, batch: Batch, prepared: object, wake: Callable[[], object]) -> object:
        self.wake = wake
        if len(batch.items) > self._most:
            raise OutOfMemory("full")
        if self._unlaunchable in values(batch):
            raise RuntimeError(f"image {self._unlaunchable} cannot be launched")
        self.log.put(f"launch {self._launched}")
        self._launched += 1
        return self._launched - 1, prepared

    def done(self, launched: Any) -> bool:
        self._looks[launched[0]] += 1
        return launched[0] < self.finished and self._looks[launched[0]] > self._least_looks

    def collect(self, batch: Batch, launched: Any) -> Sequence[Output]:
        number, prepared = launched
        self.log.put(f"collect {number}")
        if self._error is not None:
            raise self._error
        return super().run(batch, prepared)

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        assert batch.items[0].reason == WARM_UP, "what is asked for is launched and collected"
        return super().run(batch, prepared)

    async def logged(self, count: int) -> list[str]:
        return [await asyncio.to_thread(self.log.get, True, 10) for _ in range(count)]


def values(batch: Batch) -> list[int]:
    return [int(item.request.pixels.flat[0]) for item in batch.items]


def batch(*values: int, deadline: float | None = None) -> Batch:
    requests = [Request(np.full((4, 4, 3), v, np.uint8), RatioSpec(0.0, 0.0), 0.0, deadline) for v in values]
    return Batch(tuple(BatchItem(one, 0.0, "requested") for one in requests), float(len(requests)))


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        pass


class Bench:
    """A worker over such a backend, warm, and what it said."""

    def __init__(
        self,
        backend: FakeAsynchronousBackend,
        clock: Callable[[], float] = lambda: 0.0,
        lock: FairLock | None = None,
    ) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        post = lambda worker, event: self.events.put_nowait(event)  # noqa: E731
        self.worker = Worker(
            "overlap",
            lambda: backend,
            costs=FakeCosts(),
            input_size=4,
            clock=clock,
            post=post,
            device_lock=lock,
        )

    async def warm(self) -> Bench:
        self.worker.start()
        assert isinstance(await self.events.get(), Ready)
        return self

    async def report(self) -> BatchReport:
        event = await asyncio.wait_for(self.events.get(), 10)
        assert isinstance(event, BatchReport)
        return event

    async def ended(self) -> Ended:
        self.worker.stop()
        while not isinstance(event := await asyncio.wait_for(self.events.get(), 10), Ended):
            pass
        return event


async def test_the_next_batch_is_launched_before_the_first_is_collected() -> None:
    backend = FakeAsynchronousBackend(held=True)
    bench = await Bench(backend).warm()
    bench.worker.give(batch(1))
    assert await backend.logged(1) == ["launch 0"]
    bench.worker.give(batch(2))
    assert await backend.logged(2) == ["launch 1", "collect 0"]
    backend.finished = 2
    answers = [(await bench.report()).outputs for _ in range(2)]
    assert [one.logits.argmax() for one in [*(answers[0] or ()), *(answers[1] or ())]] == [1, 2]
    assert await bench.ended() == Ended(None)


async def test_a_device_that_calls_back_is_not_polled() -> None:
    backend = FakeAsynchronousBackend(held=True, poll_s=600.0)
    bench = await Bench(backend).warm()
    bench.worker.give(batch(1))
    assert await backend.logged(1) == ["launch 0"]
    bench.worker.give(batch(2))
    assert await backend.logged(2) == ["launch 1", "collect 0"]
    assert (await bench.report()).outputs
    backend.wake()  # too early: it is asked again when it calls again
    backend.finished = 2
    backend.wake()
    assert (await bench.report()).outputs
    bench.worker.give(batch(3))
    backend.finished = 3
    assert await backend.logged(2) == ["collect 1", "launch 2"]
    backend.wake()
    assert (await bench.report()).outputs
    assert await bench.ended() == Ended(None)


async def test_nothing_is_launched_early_while_another_model_waits_for_the_device() -> None:
    lock, other = FairLock(), object()
    backend = FakeAsynchronousBackend(held=True, orders_models=False)
    bench = await Bench(backend, lock=lock).warm()
    bench.worker.give(batch(1))
    assert await backend.logged(1) == ["launch 0"]
    waits = asyncio.create_task(asyncio.to_thread(lock.acquire, other))
    await asyncio.to_thread(until, lambda: lock.contended)
    bench.worker.give(batch(2))
    assert await backend.logged(1) == ["collect 0"]
    assert await waits, "its turn comes after the batch that ran"
    assert backend.log.empty()
    lock.release(other, 0.0)
    assert await backend.logged(1) == ["launch 1"]
    backend.finished = 2
    assert [(await bench.report()).outputs is not None for _ in range(2)] == [True, True]
    assert await bench.ended() == Ended(None)
    assert await asyncio.to_thread(lock.acquire, other), "the device is free at the end"


async def test_a_batch_counts_from_when_the_one_before_it_was_done() -> None:
    now = [0.0]

    class Backend(FakeAsynchronousBackend):
        def collect(self, batch: Batch, launched: Any) -> Sequence[Output]:
            outputs = super().collect(batch, launched)
            now[0] = (5.0, 9.0)[launched[0]]
            return outputs

    backend = Backend(held=True)
    bench = await Bench(backend, clock=lambda: now[0]).warm()
    now[0] = 1.0
    bench.worker.give(batch(1))
    await backend.logged(1)
    now[0] = 2.0
    bench.worker.give(batch(2))
    first = await bench.report()
    backend.finished = 2
    second = await bench.report()
    assert (first.started, first.finished) == (1.0, 5.0)
    assert (second.started, second.finished) == (5.0, 9.0)
    await bench.ended()


async def test_what_does_not_fit_or_is_too_late_is_reported_in_order() -> None:
    backend = FakeAsynchronousBackend(room=2)
    bench = await Bench(backend, clock=lambda: 1.0).warm()
    batches = [batch(1), batch(1, 2, 3), batch(2, deadline=0.5), batch(3)]
    for one in batches:
        bench.worker.give(one)
    reports = [await bench.report() for _ in batches]
    assert [report.batch for report in reports] == batches
    assert [None if r.outputs is None else len(r.outputs) for r in reports] == [1, None, 0, 1]
    await bench.ended()


async def test_stopping_starts_nothing_more_and_reports_what_runs() -> None:
    backend = FakeAsynchronousBackend(held=True)
    bench = await Bench(backend).warm()
    bench.worker.give(batch(1))
    await backend.logged(1)
    bench.worker.stop()
    bench.worker.give(batch(2))
    backend.finished = 1
    assert isinstance(await bench.report(), BatchReport)
    assert await bench.ended() == Ended(None)
    assert await backend.logged(1) == ["collect 0"]
    assert backend.log.empty()


@pytest.mark.parametrize("given", [1, 2])
async def test_an_error_of_the_device_ends_it(given: int) -> None:
    error = RuntimeError("device-side assert")
    bench = await Bench(FakeAsynchronousBackend(error=error)).warm()
    for value in range(given):
        bench.worker.give(batch(value))
    event = await asyncio.wait_for(bench.events.get(), 10)
    assert isinstance(event, Ended)
    assert event.error is error


async def test_a_launch_that_raises_is_put_down_to_its_own_batch() -> None:
    backend = FakeAsynchronousBackend(held=True, unlaunchable=9)
    bench = await Bench(backend).warm()
    running, bad = batch(1), batch(9)
    bench.worker.give(running)
    assert await backend.logged(1) == ["launch 0"]
    bench.worker.give(bad)
    backend.finished = 1
    report = await bench.report()
    assert report.batch is running
    assert [one.logits.argmax() for one in report.outputs or ()] == [1]
    ended = await asyncio.wait_for(bench.events.get(), 10)
    assert isinstance(ended, Ended)
    assert "image 9 cannot be launched" in str(ended.error)
    assert ended.batch is bad


async def test_where_the_running_batch_fails_too_it_was_the_first_to_fail() -> None:
    """A CUDA error is reported by whatever is called next: here by the launch of an innocent batch."""
    error = RuntimeError("illegal memory access")
    backend = FakeAsynchronousBackend(held=True, error=error, unlaunchable=9)
    bench = await Bench(backend).warm()
    running = batch(1)
    bench.worker.give(running)
    assert await backend.logged(1) == ["launch 0"]
    bench.worker.give(batch(9))
    ended = await asyncio.wait_for(bench.events.get(), 10)
    assert isinstance(ended, Ended)
    assert ended.error is error
    assert ended.batch is running


@pytest.mark.parametrize("suspect", [0, 1])
async def test_an_image_that_was_in_a_death_shares_the_device_with_no_other_batch(suspect: int) -> None:
    backend = FakeAsynchronousBackend(held=True)
    bench = await Bench(backend).warm()
    batches = [batch(1), batch(2)]
    batches[suspect].items[0].request.attempts = 1
    for one in batches:
        bench.worker.give(one)
    assert await backend.logged(2) == ["launch 0", "collect 0"]
    await bench.report()
    assert await backend.logged(1) == ["launch 1"]
    backend.finished = 2
    await bench.report()
    assert await bench.ended() == Ended(None)


async def test_no_image_fails_for_the_launch_of_another(rig: Any) -> None:
    """Each launch of image 9 kills the backend while others are on the device: they are answered."""
    plans = [{"make": FakeAsynchronousBackend, "unlaunchable": 9, "looks": 20} for _ in range(4)]
    scheduler = await rig.start(*plans, limits=Limits(max_batch_size=1))
    tasks = await rig.submit(scheduler, 1, 9, 2, 3)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found.pop(1), EngineUnavailable)
    assert [done.output.logits.argmax() for done in found] == [1, 2, 3]
