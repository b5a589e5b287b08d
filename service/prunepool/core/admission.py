"""Admission control: a request is refused if its answer would be too late, or the queue is too long.

No clock: the time comes with the request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunepool.core.types import Limits, RatioSpec
from prunepool.errors import DeadlineExceeded, Overloaded

#: A queue that is longer than the target for so many targets is no burst any more.
_BURST = 1.0
#: Whatever the target, so many images may wait: a target below that is one that the device cannot meet.
_LEAST_IMAGES = 4
#: While a queue stands, it is kept within the first share of the target, so that accepted requests are answered
#: in time. The next burst is accepted once the queue was within the second.
_STANDING, _CALM = 0.75, 0.5


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that asks to be accepted, and what is predicted for it.

    Attributes:
        now: the time.
        ratio_spec: the ratio that it asks for.
        deadline: when an answer becomes worthless, or None.
        accepted: requests accepted and not yet answered.
        answered_in_s: predicted seconds to its answer, with the queue at the ratios that it would get now and
            itself at the largest that it allows.
        drain_s: predicted seconds to answer the queue and itself, everything at the largest ratio allowed.
        alone_s: predicted seconds to run it by itself, at that ratio.
    """

    now: float
    ratio_spec: RatioSpec
    deadline: float | None
    accepted: int
    answered_in_s: float
    drain_s: float
    alone_s: float


class Admission:
    """Admission control of one model.

    A burst is accepted whole, for it is over soon. Requests for `auto` are refused while a queue *stands*: while
    it has been too long for the target, even at the largest reductions, for longer than the target.

    Args:
        limits: of the queue.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._too_long_since: float | None = None
        self._standing = False

    def check(self, arrival: Arrival) -> None:
        """Accept a request or raise.

        Raises:
            Overloaded: the queue is too long.
            DeadlineExceeded: by prediction its answer would come too late.
        """
        most, most_s = self._limits.max_queue_requests, self._limits.max_queue_s
        if arrival.accepted >= most:
            raise Overloaded(
                f"{arrival.accepted} images wait for their answers, and {most} is the limit",
                retry_after=max(0.0, arrival.drain_s - arrival.alone_s),
            )
        if arrival.accepted and arrival.drain_s > most_s:
            raise Overloaded(
                f"answering what waits would take {arrival.drain_s:.1f} s, and {most_s:g} s is the limit",
                retry_after=arrival.drain_s - most_s,
            )
        self._check_target(arrival)
        self._check_deadline(arrival)

    def _check_target(self, arrival: Arrival) -> None:
        most_s = max(self._limits.target_s, _LEAST_IMAGES * arrival.alone_s)
        self._update_standing(arrival, most_s)
        standing_s = _STANDING * most_s
        if self._standing and arrival.drain_s > standing_s and arrival.ratio_spec.requested is None:
            raise Overloaded(
                f"answering what waits would take {arrival.drain_s * 1000:.0f} ms even at the largest"
                f" reductions allowed, and {standing_s * 1000:.0f} ms is the limit",
                retry_after=arrival.drain_s - _CALM * most_s,
            )

    def _update_standing(self, arrival: Arrival, most_s: float) -> None:
        """Tell a standing queue from a burst."""
        if arrival.drain_s <= most_s:
            self._too_long_since = None
            self._standing = self._standing and arrival.drain_s > _CALM * most_s
        elif self._too_long_since is None:
            self._too_long_since = arrival.now
        elif arrival.now - self._too_long_since > _BURST * most_s:
            self._standing = True

    def _check_deadline(self, arrival: Arrival) -> None:
        left = math.inf if arrival.deadline is None else arrival.deadline - arrival.now
        if arrival.answered_in_s > left:
            raise DeadlineExceeded(
                f"an answer would take {arrival.answered_in_s * 1000:.0f} ms even at a reduction ratio of"
                f" {arrival.ratio_spec.largest:g},"
                f" and the deadline leaves {max(0.0, left) * 1000:.0f} ms"
            )
