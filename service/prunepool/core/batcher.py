"""Dynamic batching: the queue of one model, and which of its requests form the next batch.

No clock, no thread and no device: the time is passed in.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from prunepool.core.prediction import Predictor
from prunepool.core.ratio_policy import RatioChoice
from prunepool.core.types import Batch, BatchItem, Costs, Limits, RatioSpec, Request


def trim(batch: Batch, keep: Callable[[Request], bool], costs: Costs) -> Batch:
    """The batch with only the requests that `keep` accepts."""
    items = tuple(item for item in batch.items if keep(item.request))
    if len(items) == len(batch.items):
        return batch
    return Batch(items, sum(costs.gmacs(item.ratio) for item in items))


def expired(request: Request, now: float) -> bool:
    """Whether an answer would be too late. At the deadline it would be: it still has to be computed."""
    return request.deadline is not None and now >= request.deadline


class Batcher:
    """First come, first served, in batches bounded by images and by predicted time.

    Args:
        limits: the bounds.
        predictor: predicts how long a batch takes.
    """

    def __init__(self, limits: Limits, predictor: Predictor) -> None:
        self._limits = limits
        self._predictor = predictor
        #: Requests in order of arrival, each with the ratio that it was predicted to run at.
        self._waiting: OrderedDict[Request, float] = OrderedDict()
        self._ratio_specs: Counter[RatioSpec] = Counter()
        self._ratios: Counter[float] = Counter()
        #: Batches that a device did not complete, and their requests that still wait.
        self._returned: deque[Sequence[BatchItem]] = deque()
        self._returned_waiting: dict[Request, float] = {}
        self._deadlines: list[tuple[float, int, Request]] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting) + len(self._returned_waiting)

    def images(self, ratio_of: Callable[[RatioSpec], float]) -> Counter[float]:
        """How many requests wait at each ratio; `ratio_of` gives that of requests whose ratio is not chosen yet."""
        images = Counter(self._returned_waiting.values())
        for ratio_spec, number in self._ratio_specs.items():
            images[ratio_of(ratio_spec)] += number
        return images

    @property
    def ratio_specs(self) -> Mapping[RatioSpec, int]:
        """The number of requests in :attr:`waiting` for each ratio_spec."""
        return self._ratio_specs

    @property
    def waiting(self) -> Collection[Request]:
        """The requests whose ratio is not chosen yet, oldest first; a view, not a copy."""
        return self._waiting.keys()

    @property
    def full(self) -> bool:
        """Whether the next batch gains nothing from waiting for more requests."""
        return (
            bool(self._returned_waiting)
            or len(self._waiting) >= self._predictor.max_images
            or self._predictor.run_s(self._ratios) >= self._limits.max_batch_s
        )

    def add(self, request: Request, ratio: float) -> None:
        """Queue a request.

        Args:
            request: not waiting yet.
            ratio: the ratio at which it would run now, to predict the time of the next batch.
        """
        assert request not in self._waiting
        self._waiting[request] = ratio
        self._ratio_specs[request.ratio_spec] += 1
        self._ratios[ratio] += 1
        self._note_deadline(request)

    def put_back(self, items: Sequence[BatchItem]) -> None:
        """Queue the items of a batch that a device did not complete, as one batch, ahead of everything else."""
        self._returned.append(items)
        for item in items:
            self._returned_waiting[item.request] = item.ratio
            self._note_deadline(item.request)

    def cancel(self, request: Request) -> bool:
        """Drop a request; returns whether it was waiting."""
        ratio = self._waiting.pop(request, None)
        if ratio is not None:
            _take_one(self._ratio_specs, request.ratio_spec)
            _take_one(self._ratios, ratio)
        elif self._returned_waiting.pop(request, None) is None:
            return False
        self._compact()
        return True

    def expire(self, now: float) -> list[Request]:
        """Drop and return the requests whose deadline has passed, earliest deadline first."""
        late = []
        while self._deadlines and expired(self._deadlines[0][2], now):
            request = heappop(self._deadlines)[2]
            if self.cancel(request):
                late.append(request)
        return late

    def clear(self) -> list[Request]:
        """Drop and return all requests."""
        requests = [*self._returned_waiting, *self._waiting]
        for request in requests:
            self.cancel(request)
        self._returned.clear()
        self._deadlines.clear()
        return requests

    def ready(self, now: float) -> bool:
        """Whether an idle device gets a batch now: the batch is full, or the batching window is over."""
        return self.full or (bool(self._waiting) and now >= self._window_end())

    def next_event(self, now: float) -> float | None:
        """The next time after now at which the batching window ends or a deadline passes; None if there is none."""
        self._sweep()
        times = [self._deadlines[0][0]] if self._deadlines else []
        if self._waiting:
            times.append(self._window_end())
        return min((time for time in times if time > now), default=None)

    def next_batch(
        self,
        now: float,
        choose: Callable[[Request], RatioChoice],
        *,
        charge: Callable[[Sequence[Request]], object] = lambda requests: None,
        free_at: float | None = None,
    ) -> Batch | None:
        """Take the next batch out of the queue; None if the queue is empty or the batching window is open.

        Stops before a request that would push the batch past a deadline it would otherwise meet.

        Args:
            now: the time.
            choose: decides the ratio of a request; called once for each that is considered, also for one that
                then does not fit.
            charge: called with the requests of the batch once it is cut. Not called for a batch that was put back:
                its requests were charged before.
            free_at: when the device is expected to start the batch; now, if not given.
        """
        while self._returned:
            back = [item for item in self._returned.popleft() if item.request in self._returned_waiting]
            if back:
                return self._take(back)
        if not self.ready(now):
            return None
        start = now if free_at is None else free_at
        items: list[BatchItem] = []
        images: Counter[float] = Counter()
        earliest_deadline = math.inf
        for request in self._waiting:
            choice = choose(request)
            images[choice.ratio] += 1
            run_s = self._predictor.run_s(images)
            if items and (run_s > self._limits.max_batch_s or start + run_s > earliest_deadline):
                break
            items.append(BatchItem(request, choice.ratio, choice.reason))
            if request.deadline is not None and start + run_s <= request.deadline:
                earliest_deadline = min(earliest_deadline, request.deadline)
            if len(items) >= self._predictor.max_images:
                break
        charge([item.request for item in items])
        return self._take(items)

    def _take(self, items: list[BatchItem]) -> Batch:
        for item in items:
            self.cancel(item.request)
        # Neighbouring images of one ratio form one ragged segment on the device.
        ordered = tuple(sorted(items, key=lambda item: item.ratio))
        return Batch(ordered, sum(self._predictor.gmacs(item.ratio) for item in ordered))

    def _window_end(self) -> float:
        return next(iter(self._waiting)).arrival + self._limits.max_wait_s

    def _note_deadline(self, request: Request) -> None:
        if request.deadline is not None:
            heappush(self._deadlines, (request.deadline, next(self._numbers), request))

    def _compact(self) -> None:
        """Drop deadlines of requests that no longer wait once they are the majority: they keep pixels in memory."""
        if len(self._deadlines) > 2 * len(self) + 16:
            self._deadlines = [entry for entry in self._deadlines if self._waits(entry[2])]
            heapify(self._deadlines)

    def _sweep(self) -> None:
        """Drop the earliest deadlines as long as their requests no longer wait."""
        while self._deadlines and not self._waits(self._deadlines[0][2]):
            heappop(self._deadlines)

    def _waits(self, request: Request) -> bool:
        return request in self._waiting or request in self._returned_waiting


def _take_one(counts: Counter[Any], key: object) -> None:
    """Decrement a count; a key whose count is zero is deleted."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
