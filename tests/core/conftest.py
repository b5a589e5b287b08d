"""A scheduler whose time and device the test holds in its hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from prunepool.core.ratio_policy import DefaultRatio
from prunepool.core.resilience import Resilience
from prunepool.core.scheduler import Scheduler
from prunepool.core.types import Limits, RatioSpec, Request, Result
from prunepool.metrics import Metrics
from prunepool.testing import FakeBackend, FakeCosts, Gate, fake_served

CLASSES = 256


async def settle() -> None:
    """Let everything that is due on the loop happen."""
    for _ in range(10):
        await asyncio.sleep(0)


class Clock:
    """Time that passes when told, for the code and for the timers of the running loop."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def advance(self, seconds: float) -> None:
        """Time passes, and every timer goes off in its turn."""
        end = self.now + seconds
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined] # no loop tells it otherwise
        while due := [t.when() for t in timers if not t.cancelled() and self.now < t.when() <= end]:
            self.now = min(due)
            await settle()
        await self.stand_still(end - self.now)

    async def stand_still(self, seconds: float) -> None:
        """Time passes, and the process with all its timers learns of it afterwards."""
        self.now += seconds
        await settle()


class Rig:
    """Makes requests and schedulers, and closes what it made."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self.metrics = metrics
        self.clock = clock
        self.gate = Gate()
        self.backends: list[FakeBackend] = []
        self.plans: list[dict[str, Any]] = []
        self.schedulers: list[Scheduler] = []

    def factory(self) -> FakeBackend:
        """The next backend: as `plans` says, without faults after that."""
        plan = self.plans.pop(0) if self.plans else {}
        make = plan.pop("make", FakeBackend)
        if "error" in plan:
            raise plan["error"]
        backend = make(CLASSES, gate=plan.pop("gate", self.gate), **plan)
        self.backends.append(backend)
        return backend

    def make(
        self,
        *plans: dict[str, Any],
        limits: Limits | None = None,
        policy: Any = None,
        auto_maximum: float | None = None,
        **resilience: float,
    ) -> Scheduler:
        self.plans = [dict(plan) for plan in plans]
        scheduler = Scheduler(
            fake_served("m", self.factory),
            policy=policy or DefaultRatio(0.5),
            metrics=self.metrics,
            limits=limits,
            resilience=Resilience(**{"first_delay_s": 0.0, **resilience}),
            auto_maximum=auto_maximum,
            clock=self.clock,
        )
        self.schedulers.append(scheduler)
        return scheduler

    async def start(self, *plans: dict[str, Any], **options: Any) -> Scheduler:
        scheduler = self.make(*plans, **options)
        await scheduler.start()
        return scheduler

    def request(self, value: int = 0, *, ratio: float | None = 0.0, within: float | None = None) -> Request:
        """A request whose answer's highest logit is `value`."""
        pixels = np.full((4, 4, 3), value, np.uint8)
        deadline = None if within is None else self.clock() + within
        return Request(pixels, RatioSpec(ratio, FakeCosts.max_ratio), self.clock(), deadline)

    async def submit(self, scheduler: Scheduler, *values: int, **options: Any) -> list[asyncio.Task[Result]]:
        """Submit requests, in order, and let them into the queue."""
        requests = [self.request(value, **options) for value in values]
        tasks = [asyncio.create_task(scheduler.submit(one)) for one in requests]
        await settle()
        return tasks

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of a series of this model."""
        return self.metrics.registry.get_sample_value(f"prunepool_{name}", {"model": "m", **labels})

    @property
    def ran(self) -> list[list[int]]:
        """The values of the images in each batch that came to the device, over all backends."""
        return [
            [int(item.request.pixels.flat[0]) for item in batch.items]
            for backend in self.backends
            for batch in backend.batches
        ]


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@pytest.fixture
async def rig(metrics: Metrics, clock: Clock) -> AsyncIterator[Rig]:
    rig = Rig(metrics, clock)
    before = set(threading.enumerate())
    yield rig
    rig.gate.open()
    closing = asyncio.gather(*(scheduler.close(0.0) for scheduler in rig.schedulers))
    while not closing.done():  # time passes, so that what a failed test left hanging does not hang here
        await clock.advance(1.0)
    await closing
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("prunepool-engine"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive(), "a test left an engine behind"


async def _until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; a test that waits in vain runs into its time limit."""
    while not condition():  # noqa: ASYNC110 - it is another thread that makes it so
        await asyncio.sleep(0)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Any]:
    return _until


@pytest.fixture
def top() -> Callable[[asyncio.Task[Result]], int]:
    """Which image an answer belongs to."""
    return lambda task: int(task.result().output.logits.argmax())
