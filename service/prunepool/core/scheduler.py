"""One model's queue and device: takes requests, forms batches, sees that each gets an answer or an error.

Lives on one event loop, so it needs no lock; the device has its own thread (worker.py), replaced when it
fails (supervisor.py). An idle device takes at once what waits. While it runs, requests collect; a batch that
is full follows without a pause, one that is not stays open to latecomers until the device is free.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

from prunepool.core.backend import Backend
from prunepool.core.batcher import expired, trim
from prunepool.core.cost_model import TimedBatch
from prunepool.core.device_share import ModelBacklog, SharedDevice
from prunepool.core.events import BatchReport, Ready
from prunepool.core.grace_period import RestartGrace
from prunepool.core.in_flight import Hold, InFlight
from prunepool.core.model_gauges import ModelGauges
from prunepool.core.pending import PendingRequests, too_late
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.profiling import profile_batches
from prunepool.core.ratio_policy import RatioPolicy
from prunepool.core.recovery import Supervisor
from prunepool.core.resilience import Resilience
from prunepool.core.scheduler_metrics import SchedulerMetrics
from prunepool.core.types import Batch, BatchItem, Costs, Limits, RatioSpec, Request, Result
from prunepool.core.worker import Post, Worker
from prunepool.errors import Draining, EngineUnavailable, PrunepoolError
from prunepool.metrics import Metrics

#: The reason of a work that only an idle device does.
SPARE = "spare"
#: How long warm-up profiling may take, so that the first predictions are good.
_PROFILE_BUDGET_S = 2.0

log = logging.getLogger(__name__)


class Scheduler:
    """The way from a request to its completion.

    Args:
        name: the model's.
        factory: makes the backend; called in the thread that will own it, again for each restart.
        image_size: pixels a side of what the model takes.
        costs: what a ratio costs.
        policy: which ratio a request gets.
        metrics: the service's series.
        limits: bounds of queue and batches.
        resilience: how long to bear with a failing engine.
        generation: of the model, for the results.
        applied: the share of patch tokens that a ratio really removes, for the results.
        auto_maximum: the largest ratio of `auto` where a request says nothing, for the metric that shows what
            it would take now; what the model can do, if not given.
        active: whether its gauges are; not those of a successor before it takes over.
        device: where it runs, with other models; it has one to itself, if not given.
        warm_up_profile: of an earlier engine on the same device; the first start then times nothing.
        clock: seconds, monotonic; arrivals and deadlines of requests are on it.

    Attributes:
        gauges: what it shows of its state.
        warm_up_profile: the timed batches that its first predictions are from.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[], Backend],
        *,
        image_size: int,
        costs: Costs,
        policy: RatioPolicy,
        metrics: Metrics,
        limits: Limits | None = None,
        resilience: Resilience | None = None,
        generation: str = "",
        applied: Callable[[float], float] = lambda ratio: ratio,
        auto_maximum: float | None = None,
        active: bool = True,
        device: SharedDevice | None = None,
        warm_up_profile: Sequence[TimedBatch] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._factory = factory
        self._image_size = image_size
        self._costs = costs
        self._limits = limits or Limits()
        self._clock = clock
        self._shared = device or SharedDevice()
        self._planner = Planner(costs, policy, self._limits)
        self._batcher = self._planner.batcher
        self.warm_up_profile = tuple(warm_up_profile)
        self._planner.fit_profile(self.warm_up_profile)
        self.gauges = ModelGauges(metrics, name, active=active)
        self._tally = SchedulerMetrics(metrics, name, costs, self.gauges)
        auto = RatioSpec(None, costs.max_ratio if auto_maximum is None else auto_maximum)
        self.gauges.auto(lambda: policy.forecast(auto, clock()))
        self._tally.set_targets(auto.maximum, self._limits.target_s)
        self._pending = PendingRequests(generation, applied)
        self._in_flight = InFlight()
        self._draining = False
        self._closed = False
        self._closing: asyncio.Task[bool] | None = None
        self._waking = False
        self._alarm: asyncio.TimerHandle | None = None
        self._gave_up = False
        self._when_idle: Callable[[], object] = lambda: None
        self._when_hopeless: Callable[[str], object] = lambda why: None
        resilience = resilience or Resilience()
        self._patience = RestartGrace(resilience.grace_period_s, clock, self._give_up)
        self._supervisor = Supervisor(
            name,
            self._make_worker,
            owner=self,
            resilience=resilience,
            metrics=metrics,
            gauges=self.gauges,
            device_lock=self._shared.lock,
            clock=clock,
        )

    @property
    def ready(self) -> bool:
        """Whether a request would be taken, were the queue empty."""
        return self.missing is None

    @property
    def missing(self) -> str | None:
        """Why no request is taken, in words; None if one would be."""
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
        """Whether the device has nothing to do, for other models either, and nothing is on its way to it."""
        taken = self._supervisor.busy or len(self._batcher) or self._in_flight.decoding
        if taken or self._draining or not self._supervisor.up:
            return False
        return not any(other.run_s for other in self._shared.others(self))

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Have this called whenever the device has run out of work, for :meth:`spare`."""
        self._when_idle = callback

    def when_hopeless(self, callback: Callable[[str], object]) -> None:
        """Have this called once, with the reason, when restarts in this process keep failing."""
        self._when_hopeless = callback

    def spare(self, request: Request) -> asyncio.Future[Result]:
        """Run one image by itself on a device that is :attr:`idle`, beside all limits and series.

        Whoever comes meanwhile waits for it as for any batch. It is not tried again where the engine dies.

        Args:
            request: of a fixed ratio.

        Returns:
            What the model says, or any error.
        """
        assert self.idle
        assert request.ratio_spec.requested is not None
        ratio = request.ratio_spec.requested
        request.attempts = 1  # a death is then the second, after which it is given up
        future = self._pending.open(request)
        self._supervisor.give(Batch((BatchItem(request, ratio, SPARE),), self._costs.gmacs(ratio)))
        return future

    async def start(self) -> None:
        """Start the engine; returns when it is warm.

        Raises:
            Exception: whatever kept it from getting warm.
        """
        self._shared.join(self, self._backlog)
        await self._supervisor.start()

    def accept(self, ratio_spec: RatioSpec, deadline: float | None = None) -> Hold:
        """Accept a request that may still have to be decoded.

        Args:
            ratio_spec: what it asks for.
            deadline: when an answer becomes worthless, or None.

        Returns:
            What counts it as accepted: release it once the request is answered or given up.

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
        if self._gave_up:
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

    def begin_drain(self) -> None:
        """Refuse what comes from now on; what has a place is still answered."""
        self._draining = True

    async def close(self, timeout_s: float) -> bool:
        """Drain within `timeout_s`, then stop the engine; whether all that was accepted got its answer.

        Idempotent: later calls wait for the first.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(timeout_s))
        return await asyncio.shield(self._closing)

    async def _close(self, timeout_s: float) -> bool:
        self.begin_drain()
        answered = await self._in_flight.wait_empty(timeout_s)
        if not answered:
            log.warning("%s: %d images unanswered after %g s", self._name, self._in_flight.count, timeout_s)
        self._closed = True
        self._set_alarm(None)
        self._patience.cancel()
        self._batcher.clear()
        self._pending.fail_all(self._stopping())
        self._shared.leave(self)
        await self._supervisor.stop()
        self._tally.set_queue(0, 0.0)
        return answered

    def on_up(self, ready: Ready) -> None:
        """The engine takes batches (again)."""
        model = self._planner.cost_model
        if not model.fitted:
            self.warm_up_profile = ready.profile
            self._planner.fit_profile(self.warm_up_profile)
            self._tally.set_cost_model(model)
            log.info("%s: up to %d images in a run", self._name, self._planner.predictor.most_images)
        self._gave_up = False
        self._pump()

    def on_report(self, report: BatchReport) -> None:
        """A batch was run: feed the device first, then those who wait for answers."""
        if report.outputs is None:
            self._halve(report.ran)
        elif report.ran.items:
            self._patience.batch_succeeded()
            model = self._planner.cost_model
            effort = self._planner.predictor.effort(report.ran, idle_before=report.idle_before)
            seconds = report.finished - report.started
            self._tally.observe_prediction(model, model.observe(effort, seconds))
            self._shared.used(self, seconds, self._clock())
        self._pump()
        self._pending.resolve(report)
        if not any(item.reason == SPARE for item in report.batch.items):
            self._tally.observe_batch(report)
        if self.idle:
            self._when_idle()

    def on_down(self, lost: Batch | None, unstarted: Sequence[Batch]) -> None:
        """The engine died: what it had comes back, and waits for the next one with patience."""
        for item in self._pending.still_pending(lost.items if lost else ()):
            item.request.attempts += 1
            if item.request.attempts > 1:
                self._pending.fail(
                    [item.request], self._unavailable("the engine died twice while it ran this image")
                )
            else:
                # Alone, so that an image that kills engines takes no other with it a second time.
                self._batcher.put_back([item])
        for batch in unstarted:
            self._batcher.put_back(self._pending.still_pending(batch.items))
        self._patience.engine_died()
        self._pump()

    def on_hopeless(self, error: BaseException) -> None:
        """Only another process can have the device back."""
        cause = f"{type(error).__name__}: {error}"
        self._when_hopeless(f"{self._name}: 2 restarts in a row failed, the last with {cause}")

    def _halve(self, batch: Batch) -> None:
        """The device had no room for a batch: each half may fit."""
        items = self._pending.still_pending(batch.items)
        if len(batch.items) == 1:
            message = "the device has no memory left for even this one image"
            self._pending.fail([item.request for item in items], self._unavailable(message))
            return
        middle = (len(items) + 1) // 2
        self._batcher.put_back(items[:middle])
        self._batcher.put_back(items[middle:])

    def _give_up(self) -> None:
        """The engine has been away for too long for those who wait."""
        if not self._supervisor.up:
            self._gave_up = True
            self._pending.fail(self._batcher.clear(), self._unavailable())

    def _wake(self) -> None:
        """Look after the queue soon: once for all the requests that come in this turn of the loop."""
        if not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        """Drop what is too late, give the device what it should have, and set the alarm for the rest."""
        self._waking = False
        if self._closed:
            return
        now = self._clock()
        try:
            for request in self._batcher.expire(now):
                self._pending.fail([request], too_late(request, now))
            while self._supervisor.room and (batch := self._next_batch(now)) is not None:
                self._supervisor.give(batch)
            self._tally.set_queue(len(self._batcher), self.drain_s)
        except Exception:
            log.exception("%s: no batch could be formed", self._name)
            # A bug, in the policy for one; whoever was on the way into a batch must not wait for ever.
            self._batcher.clear()
            self._pending.fail_all(PrunepoolError("the scheduler failed to form a batch"))
        event = self._batcher.next_event(now)
        self._set_alarm(None if event is None else event - now)

    def _next_batch(self, now: float) -> Batch | None:
        """What the device should get now, without those whose caller has just left."""
        while self._planner.due(now, device_busy=self._supervisor.busy):
            batch = self._planner.next_batch(now, device=self._device(now), arriving=self._in_flight.decoding)
            batch = batch and trim(batch, self._pending.is_pending, self._costs)
            if batch and batch.items:
                return batch
        return None

    def _device(self, now: float) -> DeviceState:
        """What the device has to do, for other models as well."""
        others, taken = self._shared.others(self), self._shared.taken(self, now)
        return self._supervisor.device._replace(others=others, taken=taken)

    def _backlog(self) -> ModelBacklog:
        """What other models on the device have to reckon with."""
        return self._planner.backlog(
            self._clock(), device=self._supervisor.device, arriving=self._in_flight.decoding
        )

    def _set_alarm(self, delay_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = None if delay_s is None else loop.call_later(delay_s, self._pump)

    def _make_worker(self, *, post: Post) -> Worker:
        """A worker; the first profiles if its speed matters at all: what is learnt later is better."""
        limits = self._limits
        matters = min(limits.max_batch_s, limits.max_queue_s, limits.target_s) < math.inf
        profiles = matters and not self._planner.cost_model.fitted
        return Worker(
            f"prunepool-engine-{self._name}",
            self._factory,
            costs=self._costs,
            input_size=self._image_size,
            clock=self._clock,
            post=post,
            profile_batches=profile_batches(self._costs.max_ratio, limits.max_batch_size) if profiles else (),
            profile_budget_s=_PROFILE_BUDGET_S,
            device_lock=self._shared.lock,
        )

    def _unavailable(self, detail: str | None = None) -> EngineUnavailable:
        return EngineUnavailable(
            detail or self._supervisor.outage, retry_after=self._supervisor.retry_after()
        )

    def _stopping(self) -> Draining:
        return Draining(
            "the server is stopping and takes no more requests", retry_after=max(1.0, self.drain_s)
        )
