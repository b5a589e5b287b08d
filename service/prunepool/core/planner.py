"""The decisions about one model's queue: admission, what goes into a batch, at which ratio.

Pure logic: no clock, no thread, no event loop. The scheduler and the simulation in the tests call it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from prunepool.core.admission import Admission, Arrival
from prunepool.core.batcher import Batcher
from prunepool.core.cost_model import CostModel, TimedBatch
from prunepool.core.device_share import ModelBacklog
from prunepool.core.prediction import Predictor
from prunepool.core.profiling import worthwhile
from prunepool.core.ratio_policy import LoadSnapshot, RatioPolicy
from prunepool.core.types import Batch, BatchItem, Costs, Limits, RatioSpec, Request


class DeviceState(NamedTuple):
    """A device as one model sees it.

    Attributes:
        batches: given by the model and not yet reported; the first of them runs, or is the next to run.
        since: when that began; None: it has not.
        idle_before: whether the device was idle before that, or is idle until now; see
            :data:`~prunepool.core.cost_model.IDLE_S`.
        others: the backlog of other models, which alternate with this one, batch by batch.
        taken: the share of the device's time that those have taken recently.
    """

    batches: Sequence[Batch]
    since: float | None
    idle_before: bool = False
    others: Sequence[ModelBacklog] = ()
    taken: float = 0.0


class Planner:
    """Decides for one model.

    Args:
        costs: of each ratio.
        policy: which ratio a request gets.
        limits: bounds of queue and batches.
    """

    def __init__(self, costs: Costs, policy: RatioPolicy, limits: Limits) -> None:
        self._limits = limits
        self._policy = policy
        self._admission = Admission(limits)
        self.cost_model = CostModel()
        self.predictor = Predictor(costs, limits, self.cost_model)
        self.batcher = Batcher(limits, self.predictor)

    def fit_profile(self, timed: Sequence[TimedBatch]) -> None:
        """Predict from the batches timed at warm-up; with `only_what_pays` they also bound the batch size."""
        self.cost_model.fit(timed)
        if self._limits.only_what_pays:
            most = self._limits.max_batch_size
            self.predictor.max_images = worthwhile(timed, self.predictor.gmacs(0.0), most)

    def admit(
        self,
        ratio_spec: RatioSpec,
        deadline: float | None,
        now: float,
        *,
        device: DeviceState,
        arriving: Mapping[RatioSpec, int],
        accepted: int,
    ) -> None:
        """Accept a request or raise.

        Args:
            ratio_spec: the ratio that it asks for.
            deadline: when an answer becomes worthless, or None.
            now: the time.
            device: its work.
            arriving: accepted requests that are still being decoded, by ratio_spec.
            accepted: requests accepted and not yet answered.

        Raises:
            Overloaded: the queue is too long.
            DeadlineExceeded: by prediction its answer would come too late.
        """
        planned = self._images(arriving, self._forecast(now)) + Counter({ratio_spec.largest: 1})
        least = self._images(arriving, attrgetter("largest")) + Counter({ratio_spec.largest: 1})
        self._admission.check(
            Arrival(
                now=now,
                ratio_spec=ratio_spec,
                deadline=deadline,
                accepted=accepted,
                answered_in_s=self._answered_in_s(planned, device, now),
                drain_s=self._answered_in_s(least, device, now),
                alone_s=self.predictor.run_s({ratio_spec.largest: 1}),
            )
        )

    def add(self, request: Request, now: float) -> None:
        """Queue an accepted request."""
        ratio = self._policy.forecast(request.ratio_spec, now)
        if request.attempts:
            # It may be what a process died of: in a batch by itself, it takes no other request with it.
            reason = "auto:load" if request.ratio_spec.requested is None else "requested"
            self.batcher.put_back([BatchItem(request, ratio, reason)])
        else:
            self.batcher.add(request, ratio)

    def due(self, now: float, *, device_busy: bool) -> bool:
        """Whether to give the device a batch; while it runs one, only a batch that gains nothing by waiting."""
        return self.batcher.full if device_busy else self.batcher.ready(now)

    def next_batch(
        self, now: float, *, device: DeviceState, arriving: Mapping[RatioSpec, int]
    ) -> Batch | None:
        """Take the next batch out of the queue, its ratios chosen; None if there is none yet."""
        batcher = self.batcher
        images = self._images(arriving, self._forecast(now))
        busy_s = self._free_in_s(device, now, self.predictor.runs(images))
        load = LoadSnapshot(
            now, batcher.waiting, batcher.ratio_specs, arriving, busy_s, self.predictor, device.taken
        )
        return batcher.next_batch(
            now,
            self._policy.plan(load),
            charge=lambda requests: self._policy.charge(requests, self.predictor),
            free_at=now + self._free_in_s(device, now, 1),
        )

    def busy_s(self, device: DeviceState, now: float) -> float:
        """Predicted seconds until the device has finished the batches that it was given."""
        if not device.batches:
            return 0.0
        first, *rest = device.batches
        first_s = self.predictor.batch_s(first, idle_before=device.idle_before)
        ran_s = 0.0 if device.since is None else now - device.since
        return max(0.0, first_s - ran_s) + sum(map(self.predictor.batch_s, rest))

    def backlog(self, now: float, *, device: DeviceState, arriving: Mapping[RatioSpec, int]) -> ModelBacklog:
        """The work that other models see, at the ratios that it would get now."""
        drain = self.predictor.drain(self._images(arriving, self._forecast(now)))
        given_s = max(map(self.predictor.batch_s, device.batches), default=0.0)
        return ModelBacklog(self.busy_s(device, now) + drain.seconds, max(drain.run_s, given_s))

    def drain_s(self, now: float, *, device: DeviceState, arriving: Mapping[RatioSpec, int]) -> float:
        """Predicted seconds to answer all that is accepted, at the ratios that it would get now."""
        images = self._images(arriving, self._forecast(now))
        return self._answered_in_s(images, device, now) if images or device.batches else 0.0

    def _answered_in_s(self, images: Mapping[float, int], device: DeviceState, now: float) -> float:
        """Predicted seconds until all images are answered, after what the device has been given."""
        ahead_s = self._free_in_s(device, now, self.predictor.runs(images))
        return ahead_s + self.predictor.drain(images).seconds

    def _free_in_s(self, device: DeviceState, now: float, runs: int) -> float:
        """Predicted seconds before `runs` further batches, without those themselves.

        That is: the batches given, the penalty of an idle device, and the batches of other models in between.
        """
        own_s = self.busy_s(device, now)
        if device.idle_before and not device.batches:
            own_s = self.predictor.idle_penalty_s
        turns = len(device.batches) + runs
        return own_s + sum(min(other.seconds, turns * other.run_s) for other in device.others)

    def _forecast(self, now: float) -> Callable[[RatioSpec], float]:
        return lambda ratio_spec: self._policy.forecast(ratio_spec, now)

    def _images(
        self, arriving: Mapping[RatioSpec, int], ratio_of: Callable[[RatioSpec], float]
    ) -> Counter[float]:
        """How many images are ahead at each ratio."""
        images = self.batcher.images(ratio_of)
        for ratio_spec, count in arriving.items():
            images[ratio_of(ratio_spec)] += count
        return images
