from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from prunepool.core.cost_model import Effort, TimedBatch
from prunepool.core.events import BatchReport, Ended, Event, Ready
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.core.worker import Worker
from prunepool.testing import FakeBackend, FakeCosts, Gate


def batch(*values: int, deadline: float | None = None) -> Batch:
    requests = [Request(np.full((4, 4, 3), v, np.uint8), RatioSpec(0.0, 0.0), 0.0, deadline) for v in values]
    return Batch(tuple(BatchItem(one, 0.0, "requested") for one in requests), float(len(requests)))


class Bench:
    """A worker and what it said."""

    def __init__(self, factory: Callable[[], FakeBackend] = FakeBackend, clock: Any = lambda: 0.0) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.worker = Worker(
            "worker-under-test",
            factory,
            costs=FakeCosts(),
            input_size=4,
            clock=clock,
            post=lambda worker, event: self.events.put_nowait(event),
        )
        self.worker.start()

    async def ended(self) -> Ended:
        self.worker.stop()
        while not isinstance(event := await self.events.get(), Ended):
            pass
        return event


async def test_it_says_when_it_is_warm() -> None:
    bench = Bench()
    assert isinstance(await bench.events.get(), Ready)
    await bench.ended()


async def test_ready_comes_with_the_time_of_one_dense_image() -> None:
    now = [10.0]

    class Backend(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
            now[0] += 0.25
            return super().run(batch, prepared)

    bench = Bench(Backend, clock=lambda: now[0])
    assert await bench.events.get() == Ready((TimedBatch(Effort(1, 1.0, 0, 0), 0.25),))
    await bench.ended()


async def test_the_backend_lives_in_the_workers_thread() -> None:
    backends: list[FakeBackend] = []
    bench = Bench(lambda: backends.append(FakeBackend()) or backends[0])
    await bench.events.get()
    (thread,) = (t for t in threading.enumerate() if t.name == "worker-under-test")
    assert backends[0].thread == thread.ident
    await bench.ended()


async def test_a_batch_is_reported_with_its_outputs() -> None:
    bench = Bench()
    bench.worker.give(given := batch(3, 7))
    await bench.events.get()
    report = await bench.events.get()
    assert isinstance(report, BatchReport)
    assert report.batch is given
    assert [output.logits.argmax() for output in report.outputs or ()] == [3, 7]
    await bench.ended()


async def test_batches_are_reported_in_order() -> None:
    bench = Bench()
    batches = [batch(i) for i in range(5)]
    for one in batches:
        bench.worker.give(one)
    await bench.events.get()
    assert [(await bench.events.get()).batch for _ in batches] == batches  # type: ignore[union-attr]
    await bench.ended()


async def test_a_batch_of_nothing_but_the_expired_does_not_reach_the_backend() -> None:
    backends: list[FakeBackend] = []
    bench = Bench(lambda: backends.append(FakeBackend()) or backends[0], clock=lambda: 5.0)
    bench.worker.give(batch(1, deadline=5.0))
    await bench.events.get()
    report = await bench.events.get()
    assert (report.ran.items, backends[0].batches) == ((), [])  # type: ignore[union-attr]
    await bench.ended()


async def test_stopping_starts_nothing_more() -> None:
    gate = Gate(is_open=False)
    backend = FakeBackend(gate=gate)
    bench = Bench(lambda: backend)
    bench.worker.give(batch(1))
    bench.worker.give(batch(2))
    await gate.arrived(1)
    bench.worker.stop()
    gate.open()
    await bench.ended()
    assert len(backend.batches) == 1


async def test_an_end_that_was_asked_for_has_no_error() -> None:
    bench = Bench()
    await bench.events.get()
    assert await bench.ended() == Ended(None)


async def test_an_end_by_an_error_names_it() -> None:
    error = KeyboardInterrupt()
    bench = Bench(lambda: FakeBackend(warm_up_error=error))
    assert (await bench.ended()).error is error


async def test_an_end_is_said_after_the_backend_is_closed() -> None:
    backend = FakeBackend(fail=lambda batch: RuntimeError())
    bench = Bench(lambda: backend)
    bench.worker.give(batch(1))
    await bench.ended()
    assert backend.closed


def test_a_loop_that_closed_meanwhile_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", trouble.append)
    gate = Gate(is_open=False)

    async def leave() -> Worker:
        bench = Bench(lambda: FakeBackend(gate=gate))
        bench.worker.give(batch(1))
        await gate.arrived(1)
        return bench.worker

    worker = asyncio.run(leave())
    gate.open()
    worker.stop()
    assert worker.join(10)
    assert trouble == []


async def test_joining_says_whether_the_thread_is_over() -> None:
    gate = Gate(is_open=False)
    bench = Bench(lambda: FakeBackend(gate=gate))
    bench.worker.give(batch(1))
    await gate.arrived(1)
    before = bench.worker.join(0.0)
    gate.open()
    await bench.ended()
    assert (before, bench.worker.join(10)) == (False, True)
