"""Keeps one worker alive: starts it, watches it, and replaces it when it dies or hangs.

::

    new ──start──▶ starting ──Ready──▶ up ──death, hang──▶ down ──back-off──▶ starting …
                       └─first start fails─▶ failed

While one is up, another can be started beside it to take over; see :mod:`prunepool.core.renewal`. Everything here
happens on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from prunepool.core.cost_model import IDLE_S
from prunepool.core.device_share import FairLock
from prunepool.core.events import BatchReport, Ended, Event, EventHandler, Ready
from prunepool.core.model_gauges import ModelGauges
from prunepool.core.planner import DeviceState
from prunepool.core.renewal import Renewal
from prunepool.core.resilience import Resilience
from prunepool.core.restarts import RestartBackoff
from prunepool.core.timer import Timer
from prunepool.core.types import Batch
from prunepool.core.worker import Worker
from prunepool.core.worker_factory import MakeWorker
from prunepool.errors import PrunepoolError
from prunepool.metrics import Metrics

#: Batches given to a worker: one that runs and one that follows without a pause.
_MOST_GIVEN = 2
#: Until a start has been measured, and the least a caller is told to wait.
_START_S, _LEAST_RETRY_S = 1.0, 0.1

log = logging.getLogger(__name__)


class Supervisor:
    """One model's worker and its successors.

    Args:
        name: of the model.
        make_worker: makes the first worker and each that follows.
        handler: takes the events.
        resilience: time limits and pauses.
        metrics: the service's series.
        gauges: where `engine_up` is set.
        device_lock: shared by the models on the device.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        make_worker: MakeWorker,
        *,
        handler: EventHandler,
        resilience: Resilience,
        metrics: Metrics,
        gauges: ModelGauges,
        device_lock: FairLock,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._make_worker = make_worker
        self._handler = handler
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
        self._backoff = RestartBackoff(resilience.first_delay_s, resilience.max_delay_s)
        self._start_s = _START_S
        self._started_at = 0.0
        self._restart_at = 0.0
        self._timer = Timer()
        self._first_start: asyncio.Future[None] | None = None
        self._renewal = Renewal(name, resilience.start_timeout_s)
        self._renews = False
        self._over = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether batches can be given."""
        return self._state == "up"

    @property
    def room(self) -> bool:
        """Whether another batch can be given now."""
        return self.up and not self._renewal.pending and len(self._given) < _MOST_GIVEN

    @property
    def busy(self) -> bool:
        """Whether the device has work."""
        return bool(self._given)

    @property
    def given(self) -> Sequence[Batch]:
        """The batches given and not yet reported."""
        return self._given

    @property
    def device(self) -> DeviceState:
        """The batches given and not yet reported, and since when the first one runs."""
        running = None if self._worker is None else self._worker.running
        if running is None:
            idle_before = self._clock() - self._device_lock.ended >= IDLE_S
            return DeviceState(self._given, None, idle_before=idle_before)
        return DeviceState(self._given, running.since, running.idle_before)

    @property
    def missing(self) -> str | None:
        """Why no batch can be given, for the operator; None if one can."""
        if self.up:
            return None
        cause = f", after {type(self._error).__name__}: {self._error}" if self._error else ""
        return f"{self.outage}{cause}"

    @property
    def outage(self) -> str:
        """Why no batch can be given, for callers: without the cause."""
        words = {"new": "not started", "starting": "loading and warming up", "down": "being restarted"}
        return f"{self._name}: the engine is {words.get(self._state, self._state)}"

    def retry_after(self) -> float:
        """Seconds until the worker should be back, from the back-off and the time a start takes."""
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
            self._limit_batch()

    def renew(self) -> None:
        """Start another worker beside the one that runs, and change to it when it is warm.

        While none runs, this waits until one does.
        """
        self._renews = not self.up
        if self.up:
            self._renewal.begin(lambda: self._make_worker(post=self._on_event, profiles=True))

    async def stop(self) -> None:
        """End the worker, or leave it behind if it does not stop in time; the handler gets no more events."""
        self._timer.cancel()
        self._renewal.cancel()
        self._state = "stopped"
        self._set_up_gauge(0)
        self._end_start(RuntimeError(f"{self._name}: stopped while it was starting"))
        if self._worker is None:
            return
        worker, timeout_s = self._worker, self._resilience.stop_timeout_s
        worker.stop()
        try:
            async with asyncio.timeout(timeout_s):
                await self._over.wait()
            worker.join(timeout_s)  # its last event is here, so this takes no time
        except TimeoutError:
            worker.abandon()
            log.error("%s: the engine did not stop within %g s and is left behind", self._name, timeout_s)

    def _end_start(self, error: Exception | None = None) -> bool:
        """Let :meth:`start` return, or raise an error; False if nobody waits for it."""
        waiting = self._first_start
        if waiting is None or waiting.done():
            return False
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)
        return True

    def _launch(self) -> None:
        if self._backoff.restarting:
            self._restarts.inc()
        self._state = "starting"
        self._set_up_gauge(0)
        self._started_at = self._clock()
        self._worker = self._make_worker(post=self._on_event)
        self._timer.start_limit(self._resilience.start_timeout_s, self._on_hang)
        try:
            self._worker.start()
        except RuntimeError as error:  # the system has no thread left to give
            self._fall(error)

    def _on_event(self, worker: Worker, event: Event) -> None:
        if self._renewal.handle(worker, event):
            self._change_over()
            return
        if worker is not self._worker:
            return  # one that was abandoned has come back
        if isinstance(event, Ended):
            if self._state == "stopped":
                self._over.set()
            else:
                self._fall(event.error or RuntimeError("the engine ended unasked"), event.batch)
        elif self._state == "stopped":
            return
        elif isinstance(event, Ready):
            self._on_ready(event)
        else:
            self._on_report(event)

    def _on_ready(self, ready: Ready) -> None:
        self._timer.cancel()
        self._state = "up"
        self._error = None
        self._backoff.started()
        self._start_s = self._clock() - self._started_at
        self._set_up_gauge(1)
        self._handler.on_up(ready)
        self._end_start()
        if self._renews:
            self.renew()

    def _change_over(self) -> None:
        """Let the new worker take over, if there is one and the old one has nothing to do."""
        if self._given or not self._renewal.pending:
            return
        assert self._worker is not None
        self._worker.stop()
        self._worker, ready = self._renewal.complete()
        log.info("%s: another engine has taken over", self._name)
        self._handler.on_renewed(ready)

    def _on_report(self, report: BatchReport) -> None:
        self._given.popleft()
        if report.outputs:  # not one that did not fit, nor one of expired requests alone
            self._backoff.batch_succeeded()
        self._timer.cancel()
        if self._given:
            self._limit_batch()
        self._handler.on_report(report)
        self._change_over()

    def _set_up_gauge(self, up: int) -> None:
        self._gauges.set(self._metrics.engine_up, up)

    def _limit_batch(self) -> None:
        self._timer.start_limit(self._resilience.batch_timeout_s, self._on_hang)

    def _on_hang(self) -> None:
        assert self._worker is not None
        self._worker.abandon()
        limits = self._resilience
        if self._state == "starting":
            self._fall(TimeoutError(f"not warm within {limits.start_timeout_s:g} s"))
        else:
            batch = self._given[0]
            limit = f"{limits.batch_timeout_s:g} s"
            self._fall(TimeoutError(f"a batch of {len(batch.items)} took more than {limit}"), batch)

    def _log(self, error: BaseException) -> None:
        """Log a death: with a traceback unless the error says all that there is to say."""
        if not isinstance(error, PrunepoolError):
            log.error("%s: the engine died", self._name, exc_info=error)
        elif self._first_start is None or self._first_start.done():  # else the caller of start() is told
            log.error("%s: the engine died: %s", self._name, error)

    def _fall(self, error: BaseException, lost: Batch | None = None) -> None:
        """The worker is dead: report it, and start another after a pause."""
        self._timer.cancel()
        self._renewal.cancel()
        self._worker = None
        self._error = error
        self._set_up_gauge(0)
        self._log(error)
        given, self._given = list(self._given), deque()
        # Only an Exception may travel through a future: a thread's SystemExit must not end the loop.
        plain = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
        if self._end_start(plain):
            self._state = "failed"
            return
        hopeless = self._backoff.died(starting=self._state == "starting")
        delay_s = self._backoff.delay_s
        self._state = "down"
        self._restart_at = self._clock() + delay_s
        self._timer.start(delay_s, self._launch)
        unstarted = [batch for batch in given if batch is not lost]
        self._handler.on_down(lost if len(unstarted) < len(given) else None, unstarted)
        if hopeless:
            self._handler.on_hopeless(error)
