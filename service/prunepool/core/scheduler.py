"""One model's queue and device: accepts requests, forms batches, and gives each request a result or an error.

It lives on one event loop, so it needs no lock. The backend has a thread of its own (worker.py), which is replaced
when it fails (recovery.py). An idle device gets waiting requests at once. While a batch runs, requests queue up: a
full batch follows without a pause, and one that is not full stays open until the device is free.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from prunepool.core.batcher import expired, trim
from prunepool.core.cost_model import TimedBatch
from prunepool.core.device_share import ModelBacklog, SharedDevice
from prunepool.core.events import BatchReport, Ready
from prunepool.core.grace_period import RestartGrace
from prunepool.core.in_flight import Hold, InFlight
from prunepool.core.model_gauges import ModelGauges
from prunepool.core.pending import PendingRequests, too_late
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.ratio_policy import RatioPolicy
from prunepool.core.recovery import Supervisor
from prunepool.core.redelivery import Redelivery
from prunepool.core.resilience import Resilience
from prunepool.core.restarts import HOPELESS_AFTER
from prunepool.core.scheduler_metrics import SchedulerMetrics
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Batch, BatchItem, Limits, RatioSpec, Request, Result
from prunepool.core.worker_factory import WorkerFactory
from prunepool.errors import Draining, EngineUnavailable, ModelReplaced, PrunepoolError, why_of
from prunepool.metrics import Metrics

#: The reason of an item of the shadow sample, which only an idle device runs.
SPARE = "spare"

log = logging.getLogger(__name__)


class Scheduler:
    """Schedules one model.

    Args:
        model: what is served; its backend is made in the thread that will own it, again for each restart.
        policy: chooses the ratio of each request.
        metrics: the service's series.
        limits: bounds of queue and batches.
        resilience: time-outs and pauses around a failing device.
        auto_maximum: the largest ratio of `auto` for a request that sets no bound, for the gauge of what `auto`
            would choose now; what the model can do, if not given.
        active: whether to export its gauges; False until a prepared model is committed.
        device: where it runs, with other models; a device of its own, if not given.
        warm_up_profile: of an earlier process on the same device; the first start then times nothing.
        clock: seconds, monotonic; arrivals and deadlines of requests are on it.

    Attributes:
        gauges: what it shows of its state.
        warm_up_profile: the timed batches that its first predictions come from.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        policy: RatioPolicy,
        metrics: Metrics,
        limits: Limits | None = None,
        resilience: Resilience | None = None,
        auto_maximum: float | None = None,
        active: bool = True,
        device: SharedDevice | None = None,
        warm_up_profile: Sequence[TimedBatch] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._name = name = model.name
        self._costs = costs = model.costs
        self._limits = limits or Limits()
        self._clock = clock
        self._shared = device or SharedDevice()
        self._planner = Planner(costs, policy, self._limits)
        self._batcher = self._planner.batcher
        self.warm_up_profile = tuple(warm_up_profile)
        self._planner.fit_profile(self.warm_up_profile)
        self.gauges = ModelGauges(metrics, name, active=active)
        self._series = SchedulerMetrics(metrics, name, costs, self.gauges)
        auto = RatioSpec(None, costs.max_ratio if auto_maximum is None else auto_maximum)
        self.gauges.auto(lambda: policy.forecast(auto, clock()))
        self._series.set_targets(auto.maximum, self._limits.target_s)
        self._pending = PendingRequests(model.generation, model.applied)
        self._in_flight = InFlight()
        self._draining = False
        self._retired = False
        self._closed = False
        self._closing: asyncio.Task[bool] | None = None
        self._waking = False
        self._alarm: asyncio.TimerHandle | None = None
        self._when_idle: Callable[[], object] = lambda: None
        self._when_hopeless: Callable[[str], object] = lambda why: None
        resilience = resilience or Resilience()
        self._supervisor = Supervisor(
            name,
            WorkerFactory(
                model,
                self._limits,
                profiled=lambda: self._planner.cost_model.fitted,
                device_lock=self._shared.lock,
                clock=clock,
            ),
            handler=self,
            resilience=resilience,
            metrics=metrics,
            gauges=self.gauges,
            device_lock=self._shared.lock,
            clock=clock,
        )
        self._redelivery = Redelivery(
            self._batcher,
            self._pending,
            RestartGrace(resilience.grace_period_s, clock, self._end_grace_period),
            self._unavailable,
        )

    @property
    def ready(self) -> bool:
        """Whether a request would be accepted, were the queue empty."""
        return self.missing is None

    @property
    def missing(self) -> str | None:
        """Why no request is accepted, in words; None if one would be."""
        return f"{self._name}: draining" if self._draining else self._supervisor.missing

    @property
    def drain_s(self) -> float:
        """Predicted seconds to answer everything accepted."""
        now = self._clock()
        return self._planner.drain_s(now, device=self._device(now), arriving=self._in_flight.decoding)

    @property
    def dense_image_s(self) -> float:
        """Predicted seconds to run one image by itself, unreduced."""
        return self._planner.predictor.run_s({0.0: 1})

    @property
    def idle(self) -> bool:
        """Whether the device has nothing to do, for other models either, and no request is on its way."""
        busy = self._supervisor.busy or len(self._batcher) or self._in_flight.decoding
        if busy or self._draining or not self._supervisor.up:
            return False
        return not any(other.run_s for other in self._shared.others(self))

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Call this whenever the device has run out of work, for :meth:`spare`."""
        self._when_idle = callback

    def when_hopeless(self, callback: Callable[[str], object]) -> None:
        """Call this once, with the reason, when restarts in this process keep failing."""
        self._when_hopeless = callback

    def spare(self, request: Request) -> asyncio.Future[Result]:
        """Run one image by itself on a device that is :attr:`idle`, bypassing admission limits and metrics.

        Requests that come meanwhile wait for it as for any batch. It is not run again if the worker dies.

        Args:
            request: of a fixed ratio.

        Returns:
            A future of its result, or of any error.
        """
        assert self.idle
        assert request.ratio_spec.requested is not None
        ratio = request.ratio_spec.requested
        request.attempts = 1  # so that a death of the worker fails it instead of requeueing it
        future = self._pending.open(request)
        self._supervisor.give(Batch((BatchItem(request, ratio, SPARE),), self._costs.gmacs(ratio)))
        return future

    async def start(self) -> None:
        """Start the worker; returns when it is warm.

        Raises:
            Exception: whatever kept it from getting warm.
        """
        loop = asyncio.get_running_loop()

        def renew() -> None:
            with suppress(RuntimeError):  # the loop is closed, so nothing is served any more
                loop.call_soon_threadsafe(self.renew)

        self._model.watch(renew)
        self._shared.join(self, self._backlog)
        await self._supervisor.start()

    def accept(self, ratio_spec: RatioSpec, deadline: float | None = None) -> Hold:
        """Accept a request that may still have to be decoded.

        Args:
            ratio_spec: what it asks for.
            deadline: when an answer becomes worthless, or None.

        Returns:
            The in-flight hold; release it once the request is answered or given up.

        Raises:
            Draining: the server is stopping.
            EngineUnavailable: the device takes no batches now.
            Overloaded: as many requests are accepted as the limits allow.
            DeadlineExceeded: by prediction its answer would come too late.
        """
        if self._draining:
            raise self._stopping()
        if not self._supervisor.up:
            raise self._unavailable()
        now = self._clock()
        self._planner.admit(
            ratio_spec,
            deadline,
            now,
            device=self._device(now),
            arriving=self._in_flight.decoding,
            accepted=self._in_flight.count,
        )
        return self._in_flight.hold(ratio_spec)

    async def submit(self, request: Request) -> Result:
        """Accept a request and answer it; raises what :meth:`accept` and :meth:`answer` raise."""
        with self.accept(request.ratio_spec, request.deadline) as hold:
            return await self.answer(request, hold)

    async def answer(self, request: Request, hold: Hold) -> Result:
        """Answer a request that was accepted.

        Args:
            request: with its pixels.
            hold: what :meth:`accept` returned for it.

        Raises:
            DeadlineExceeded: its deadline came before the device could take it.
            EngineUnavailable: the worker died, and was not back in time or died of it again.
            Draining: the server stopped first.
            asyncio.CancelledError: the caller went away; the request is dropped if it still waits.
        """
        now = self._clock()
        if expired(request, now):
            raise too_late(request, now)
        if self._closed:
            raise self._stopping()
        if self._redelivery.grace_expired:
            raise self._unavailable()
        hold.decoded()
        self._planner.add(request, now)
        future = self._pending.open(request)
        self._wake()
        try:
            return await future
        finally:
            if self._pending.forget(request):
                self._batcher.cancel(request)
                self._wake()

    def renew(self) -> None:
        """Change to a new backend when it is warm, without a pause; one made now would be faster."""
        if not self._draining:
            self._supervisor.renew()

    def begin_drain(self) -> None:
        """Refuse what comes from now on; what has a place is still answered."""
        self._draining = True

    def retire(self) -> None:
        """Refuse new requests with `ModelReplaced`: the model is served no longer, or in another generation."""
        self._retired = True
        self.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Drain within `timeout_s`, then stop the worker; whether everything that was accepted was answered.

        Idempotent: later calls wait for the first, which then has no more time than they give.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(timeout_s))
        else:
            self._in_flight.limit_wait(timeout_s)
        return await asyncio.shield(self._closing)

    async def _close(self, timeout_s: float) -> bool:
        self.begin_drain()
        answered = await self._in_flight.wait_empty(timeout_s)
        if not answered:
            log.warning("%s: %d images unanswered after %g s", self._name, self._in_flight.count, timeout_s)
        self._closed = True
        self._set_alarm(None)
        self._redelivery.cancel()
        self._batcher.clear()
        self._pending.fail_all(self._stopping())
        self._shared.leave(self)
        await self._supervisor.stop()
        self._series.set_queue(0, 0.0)
        return answered

    def on_up(self, ready: Ready) -> None:
        """The worker takes batches (again)."""
        self._series.set_running(self._model.info())
        if not self._planner.cost_model.fitted:
            self._fit(ready)
        self._redelivery.worker_is_up()
        self._pump()

    def on_renewed(self, ready: Ready) -> None:
        """Another worker has taken over: predict from its own times."""
        self._series.set_running(self._model.info())
        self._fit(ready)
        self._pump()

    def _fit(self, ready: Ready) -> None:
        self.warm_up_profile = ready.profile
        self._planner.fit_profile(self.warm_up_profile)
        self._series.set_cost_model(self._planner.cost_model)
        log.info("%s: up to %d images in a run", self._name, self._planner.predictor.max_images)

    def on_report(self, report: BatchReport) -> None:
        """A batch was run: give the device the next one first, then resolve the requests."""
        if report.outputs is None:
            self._redelivery.halve(report.ran)
        elif report.ran.items:
            self._redelivery.batch_succeeded()
            model = self._planner.cost_model
            effort = self._planner.predictor.effort(report.ran, idle_before=report.idle_before)
            seconds = report.finished - report.started
            self._series.observe_prediction(model, model.observe(effort, seconds))
            self._shared.used(self, seconds, self._clock())
        self._pump()
        self._pending.resolve(report)
        if not any(item.reason == SPARE for item in report.batch.items):
            self._series.observe_batch(report)
        if self.idle:
            self._when_idle()

    def on_down(self, lost: Batch | None, unstarted: Sequence[Batch]) -> None:
        """The worker died: what it had goes back to the queue, and waits for the next one."""
        self._redelivery.worker_died(lost, unstarted)
        self._pump()

    def on_hopeless(self, error: BaseException) -> None:
        """Restarts in this process keep failing: only another process can have the device back."""
        cause = why_of(error)
        self._when_hopeless(f"{self._name}: {HOPELESS_AFTER} restarts in a row failed, the last with {cause}")

    def _end_grace_period(self) -> None:
        if not self._supervisor.up:
            self._redelivery.give_up()

    def _wake(self) -> None:
        """Pump soon: once for all the requests that come in this turn of the loop."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Fail what is too late, give the device its next batches, and set the alarm for the rest."""
        self._waking = False
        if self._closed:
            return
        now = self._clock()
        try:
            for request in self._batcher.expire(now):
                self._pending.fail([request], too_late(request, now))
            while self._supervisor.room and (batch := self._next_batch(now)) is not None:
                self._supervisor.give(batch)
            self._series.set_queue(len(self._batcher), self.drain_s)
        except Exception:
            log.exception("%s: no batch could be formed", self._name)
            # A bug, perhaps in a policy: fail what is queued rather than let it hang. The device runs on.
            self._batcher.clear()
            running = {item.request for batch in self._supervisor.given for item in batch.items}
            error = PrunepoolError("the scheduler failed to form a batch")
            self._pending.fail([one for one in self._pending.requests if one not in running], error)
        event = self._batcher.next_event(now)
        self._set_alarm(None if event is None else event - now)

    def _next_batch(self, now: float) -> Batch | None:
        """The batch that the device should get now, without requests whose caller has just left."""
        while self._planner.due(now, device_busy=self._supervisor.busy):
            batch = self._planner.next_batch(now, device=self._device(now), arriving=self._in_flight.decoding)
            batch = batch and trim(batch, self._pending.is_pending, self._costs)
            if batch and batch.items:
                return batch
        return None

    def _device(self, now: float) -> DeviceState:
        """What the device has to do, for other models too."""
        others, taken = self._shared.others(self), self._shared.taken(self, now)
        return self._supervisor.device._replace(others=others, taken=taken)

    def _backlog(self) -> ModelBacklog:
        """What this model has for the device, as other models on it see it."""
        return self._planner.backlog(
            self._clock(), device=self._supervisor.device, arriving=self._in_flight.decoding
        )

    def _set_alarm(self, delay_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = None if delay_s is None else loop.call_later(delay_s, self._pump)

    def _unavailable(self, detail: str | None = None) -> EngineUnavailable:
        return EngineUnavailable(
            detail or self._supervisor.outage, retry_after=self._supervisor.retry_after()
        )

    def _stopping(self) -> Draining | ModelReplaced:
        if self._retired:
            return ModelReplaced(f"{self._name} was replaced or unloaded", retry_after=0.1)
        return Draining(
            "the server is stopping and takes no more requests", retry_after=max(1.0, self.drain_s)
        )
