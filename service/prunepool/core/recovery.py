"""Keeps one worker alive: starts it, watches it, and replaces it when it dies or hangs.

::

    new ──start──▶ starting ──Ready──▶ up ──death, hang──▶ down ──back-off──▶ starting …
                       └─first start fails─▶ failed

Everything here happens on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prunepool.core.cost_model import IDLE_S
from prunepool.core.device_share import FairLock
from prunepool.core.model_gauges import ModelGauges
from prunepool.core.planner import DeviceState
from prunepool.core.types import Batch
from prunepool.core.worker import BatchReport, Ended, Event, Post, Ready, Worker
from prunepool.metrics import Metrics

#: Batches given to a worker: one that runs and one that follows without a pause.
_MOST_GIVEN = 2
#: A limit of time is waited for in so many parts: a process that stood still (SIGSTOP, a suspended machine)
#: loses one of them, and what it had begun has the others to come to an end.
_PARTS = 4
#: Until a start has been measured, and the least a caller is told to wait for an engine.
_START_S, _LEAST_RETRY_S = 1.0, 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resilience:
    """How long to bear with an engine, in seconds.

    Attributes:
        batch_timeout_s: a batch that runs longer means that the engine hangs.
        start_timeout_s: loading and warming up may take this long.
        first_delay_s: pause before the first restart; it doubles until a batch succeeds.
        max_delay_s: longest pause.
        grace_period_s: how long after a death the accepted requests wait for an engine that items again.
        stop_timeout_s: how long a stopped engine may take to let go of its device.
    """

    batch_timeout_s: float = 60.0
    start_timeout_s: float = 600.0
    first_delay_s: float = 0.1
    max_delay_s: float = 30.0
    grace_period_s: float = 5.0
    stop_timeout_s: float = 5.0


class MakeWorker(Protocol):
    """Makes a worker, not yet started."""

    def __call__(self, *, post: Post) -> Worker:
        """One that posts its events to `post`."""


class Owner(Protocol):
    """Who is told what happens."""

    def on_up(self, ready: Ready) -> None:
        """Batches can be given."""

    def on_report(self, report: BatchReport) -> None:
        """A batch was run."""

    def on_down(self, lost: Batch | None, unstarted: Sequence[Batch]) -> None:
        """The engine died while it ran `lost`; `unstarted` it had not begun. Also after a failed restart."""


class Supervisor:
    """One model's worker and its successors.

    Args:
        name: the model's.
        make_worker: makes the first worker and each that follows.
        owner: who is told.
        resilience: how long to bear with what.
        metrics: the service's series.
        gauges: where it says whether the model is up.
        device_lock: shared by the models on the device.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        make_worker: MakeWorker,
        *,
        owner: Owner,
        resilience: Resilience,
        metrics: Metrics,
        gauges: ModelGauges,
        device_lock: FairLock,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._make_worker = make_worker
        self._owner = owner
        self._resilience = resilience
        self._clock = clock
        self._metrics = metrics
        self._gauges = gauges
        self._restarts = metrics.engine_restarts.labels(name)
        self._state: Literal["new", "starting", "up", "down", "failed", "stopped"] = "new"
        self._error: BaseException | None = None
        self._worker: Worker | None = None
        self._given: deque[Batch] = deque()
        self._device_lock = device_lock
        self._failures = 0
        self._start_s = _START_S
        self._started_at = 0.0
        self._restart_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._first_start: asyncio.Future[None] | None = None
        self._over = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether batches can be given."""
        return self._state == "up"

    @property
    def room(self) -> bool:
        """Whether another batch can be given now."""
        return self.up and len(self._given) < _MOST_GIVEN

    @property
    def busy(self) -> bool:
        """Whether the device has work."""
        return bool(self._given)

    @property
    def device(self) -> DeviceState:
        """What has been given and not yet reported."""
        running = None if self._worker is None else self._worker.running
        if running is None:
            return DeviceState(
                self._given, None, idle_before=self._clock() - self._device_lock.ended >= IDLE_S
            )
        return DeviceState(self._given, running.since, running.idle_before)

    @property
    def missing(self) -> str | None:
        """Why no batch can be given, for the operator; None if one can."""
        if self.up:
            return None
        return (
            f"{self.outage}, after {type(self._error).__name__}: {self._error}"
            if self._error
            else self.outage
        )

    @property
    def outage(self) -> str:
        """The same for callers, whom the cause is no business of."""
        words = {"new": "not started", "starting": "loading and warming up", "down": "being restarted"}
        return f"{self._name}: the engine is {words.get(self._state, self._state)}"

    def retry_after(self) -> float:
        """Seconds until the engine should be back, from the back-off and the time a start takes."""
        now = self._clock()
        if self._state == "down":
            return max(self._restart_at - now, 0.0) + self._start_s
        elapsed = now - self._started_at if self._state == "starting" else 0.0
        return max(self._start_s - elapsed, _LEAST_RETRY_S)

    async def start(self) -> None:
        """Start the first worker; returns when it is warm.

        Raises:
            Exception: whatever kept it from getting warm. Nothing is tried again then.
        """
        assert self._state == "new"
        self._first_start = asyncio.get_running_loop().create_future()
        self._launch()
        await self._first_start

    def give(self, batch: Batch) -> None:
        """Run a batch after the one given before."""
        assert self.room
        assert self._worker is not None
        self._given.append(batch)
        self._worker.give(batch)
        if len(self._given) == 1:
            self._watch()

    async def stop(self) -> None:
        """End the worker, or leave it behind if it does not let go in time; nobody is told any more."""
        self._cancel_timer()
        self._state = "stopped"
        self._show_up(0)
        if self._first_start is not None and not self._first_start.done():
            self._first_start.set_exception(RuntimeError(f"{self._name}: stopped while it was starting"))
        if self._worker is None:
            return
        worker, timeout_s = self._worker, self._resilience.stop_timeout_s
        worker.stop()
        try:
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
            worker.join(timeout_s)  # its last words are said, so this takes no time
        except TimeoutError:
            worker.abandon()
            log.error("%s: the engine did not stop within %g s and is left behind", self._name, timeout_s)

    def _launch(self) -> None:
        self._timer = None
        if self._failures:
            self._restarts.inc()
        self._state = "starting"
        self._show_up(0)
        self._started_at = self._clock()
        self._worker = self._make_worker(post=self._on_event)
        self._wait_for(self._resilience.start_timeout_s)
        try:
            self._worker.start()
        except RuntimeError as error:  # the system has no thread left to give
            self._fall(error)

    def _on_event(self, worker: Worker, event: Event) -> None:
        if worker is not self._worker:
            return  # one that was given up on has come back
        if isinstance(event, Ended):
            if self._state == "stopped":
                self._over.set()
            else:
                self._fall(event.error or RuntimeError("the engine ended unasked"))
        elif self._state == "stopped":
            return
        elif isinstance(event, Ready):
            self._cancel_timer()
            self._state = "up"
            self._error = None
            self._start_s = self._clock() - self._started_at
            self._show_up(1)
            self._owner.on_up(event)
            if self._first_start is not None and not self._first_start.done():
                self._first_start.set_result(None)
        else:
            self._given.popleft()
            if event.outputs:  # not one that did not fit, nor one that came to nothing
                self._failures = 0
            self._cancel_timer()
            if self._given:
                self._watch()
            self._owner.on_report(event)

    def _show_up(self, up: int) -> None:
        self._gauges.set(self._metrics.engine_up, up)

    def _watch(self) -> None:
        self._wait_for(self._resilience.batch_timeout_s)

    def _wait_for(self, seconds: float, parts: int = _PARTS) -> None:
        """Bear with the worker for so long, of which so many parts are left."""

        def passed() -> None:
            if parts > 1:
                self._wait_for(seconds, parts - 1)
            else:
                self._on_hang()

        self._set_timer(seconds / _PARTS, passed)

    def _on_hang(self) -> None:
        self._timer = None
        assert self._worker is not None
        self._worker.abandon()
        limits = self._resilience
        if self._state == "starting":
            self._fall(TimeoutError(f"not warm within {limits.start_timeout_s:g} s"))
        else:
            images = len(self._given[0].items)
            self._fall(TimeoutError(f"a batch of {images} took more than {limits.batch_timeout_s:g} s"))

    def _fall(self, error: BaseException) -> None:
        """The worker is dead: say so, and come back after a pause."""
        self._cancel_timer()
        running = self._state == "up"
        self._worker = None
        self._error = error
        self._show_up(0)
        log.error("%s: the engine died", self._name, exc_info=error)
        given, self._given = list(self._given), deque()
        if self._first_start is not None and not self._first_start.done():
            self._state = "failed"
            # Only an Exception may travel through a future: a thread's SystemExit must not end the loop.
            plain = (
                error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            )
            self._first_start.set_exception(plain)
            return
        self._failures += 1
        delay = min(
            self._resilience.first_delay_s * 2 ** min(self._failures - 1, 60), self._resilience.max_delay_s
        )
        self._state = "down"
        self._restart_at = self._clock() + delay
        self._set_timer(delay, self._launch)
        self._owner.on_down(given[0] if running and given else None, given[1:])

    def _set_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
