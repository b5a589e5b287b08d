"""What waits, and which of it goes together: the queue of one model as plain data.

No clock, no thread, no device: whoever holds it says what time it is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import count

from prunepool.batching.policy import Choice
from prunepool.batching.types import Batch, Costs, Limits, Request, Work


def trim(batch: Batch, keep: Callable[[Request], bool], costs: Costs) -> Batch:
    """A batch without the requests that are not to be kept."""
    works = tuple(work for work in batch.works if keep(work.request))
    if len(works) == len(batch.works):
        return batch
    return Batch(works, sum(costs.gmacs(work.ratio) for work in works))


def expired(request: Request, now: float) -> bool:
    """Whether an answer would be too late: at the deadline, too, for the answer still has to be computed."""
    return request.deadline is not None and now >= request.deadline


class Batcher:
    """First come, first served, in batches bounded by images and by predicted cost.

    Args:
        limits: the bounds.
        costs: what a ratio costs.
    """

    def __init__(self, limits: Limits, costs: Costs) -> None:
        self._limits = limits
        self._gmacs = lru_cache(maxsize=1024)(costs.gmacs)
        #: Requests in order of arrival, each with its predicted cost.
        self._waiting: OrderedDict[Request, float] = OrderedDict()
        #: What came back from a device, and those of its requests that still wait.
        self._returned: deque[Sequence[Work]] = deque()
        self._returned_waiting: dict[Request, float] = {}
        self._deadlines: list[tuple[float, int, Request]] = []
        self._numbers = count()
        self._waiting_gmacs = 0.0

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting) + len(self._returned_waiting)

    @property
    def gmacs(self) -> float:
        """Predicted cost of everything that waits."""
        return self._waiting_gmacs + sum(self._returned_waiting.values())

    @property
    def waiting(self) -> Collection[Request]:
        """The requests whose ratio can still be chosen, oldest first; a view, not a copy."""
        return self._waiting.keys()

    @property
    def full(self) -> bool:
        """Whether the next batch would gain nothing from waiting for more requests."""
        return bool(
            self._returned_waiting
            or len(self._waiting) >= self._limits.max_batch_size
            or (self._waiting and self._waiting_gmacs >= self._limits.max_batch_gmacs)
        )

    def add(self, request: Request, ratio: float) -> None:
        """Let a request wait at the end of the queue.

        Args:
            request: not waiting yet.
            ratio: the ratio at which it would run now, for the prediction of cost.
        """
        assert request not in self._waiting
        self._waiting[request] = cost = self._gmacs(ratio)
        self._waiting_gmacs += cost
        self._note_deadline(request)

    def put_back(self, works: Sequence[Work]) -> None:
        """Let works that came back from a device be a batch by themselves, before all that is new."""
        self._returned.append(works)
        for work in works:
            self._returned_waiting[work.request] = self._gmacs(work.ratio)
            self._note_deadline(work.request)

    def cancel(self, request: Request) -> bool:
        """Forget a request; whether it was waiting."""
        cost = self._waiting.pop(request, None)
        if cost is not None:
            self._waiting_gmacs -= cost
        elif self._returned_waiting.pop(request, None) is None:
            return False
        if not self._waiting:
            self._waiting_gmacs = 0.0  # what rounding left over must not add up over the days
        self._compact()
        return True

    def expire(self, now: float) -> list[Request]:
        """Forget the requests whose deadline has come, and return them, the earliest deadline first."""
        late = []
        while self._deadlines and expired(self._deadlines[0][2], now):
            request = heappop(self._deadlines)[2]
            if self.cancel(request):
                late.append(request)
        return late

    def clear(self) -> list[Request]:
        """Forget all requests, and return them."""
        requests = [*self._returned_waiting, *self._waiting]
        for request in requests:
            self.cancel(request)
        self._returned.clear()
        self._deadlines.clear()
        return requests

    def ready(self, now: float) -> bool:
        """Whether an idle device should take a batch now rather than wait for company."""
        return self.full or (bool(self._waiting) and now >= self._company_until())

    def next_event(self, now: float) -> float | None:
        """When, after now, waiting for company ends or a deadline comes; None: nothing to wait for."""
        self._sweep()
        times = [self._deadlines[0][0]] if self._deadlines else []
        if self._waiting:
            times.append(self._company_until())
        return min((time for time in times if time > now), default=None)

    def next_batch(self, now: float, choose: Callable[[Request], Choice]) -> Batch | None:
        """Take the next batch out of the queue; None if there is nothing to take or company may still come.

        Args:
            now: the time.
            choose: decides the ratio of a request; called once for each that is considered.
        """
        while self._returned:
            back = [work for work in self._returned.popleft() if work.request in self._returned_waiting]
            if back:
                costs = [self._returned_waiting[work.request] for work in back]
                return self._take(back, sum(costs))
        if not self.ready(now):
            return None
        works: list[Work] = []
        total = 0.0
        for request in self._waiting:
            choice = choose(request)
            cost = self._gmacs(choice.ratio)
            if works and total + cost > self._limits.max_batch_gmacs:
                break
            works.append(Work(request, choice.ratio, choice.reason))
            total += cost
            if len(works) == self._limits.max_batch_size:
                break
        return self._take(works, total)

    def _take(self, works: list[Work], gmacs: float) -> Batch:
        for work in works:
            self.cancel(work.request)
        # One ratio's images next to each other are one rectangle of tokens on the device.
        return Batch(tuple(sorted(works, key=lambda work: work.ratio)), gmacs)

    def _company_until(self) -> float:
        return next(iter(self._waiting)).arrival + self._limits.max_wait_s

    def _note_deadline(self, request: Request) -> None:
        if request.deadline is not None:
            heappush(self._deadlines, (request.deadline, next(self._numbers), request))

    def _compact(self) -> None:
        """Now and then drop the deadlines of requests that are gone: they would hold the pixels till then."""
        if len(self._deadlines) > 2 * len(self) + 16:
            self._deadlines = [entry for entry in self._deadlines if self._waits(entry[2])]
            heapify(self._deadlines)

    def _sweep(self) -> None:
        """Drop the deadlines of requests that are gone from the front."""
        while self._deadlines and not self._waits(self._deadlines[0][2]):
            heappop(self._deadlines)

    def _waits(self, request: Request) -> bool:
        return request in self._waiting or request in self._returned_waiting
