"""Escalation: an image of whose answer the reduced model is not sure is run again, dense, if there is time.

Extra work is only for a device that has time for it: never where the load decided on the reduction, and never
where what waits would take a good part of the latency target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from prunepool.core.logits import best_class, margin
from prunepool.core.scheduler import Scheduler
from prunepool.core.types import Limits, RatioSpec, Request, Result
from prunepool.errors import PrunepoolError
from prunepool.metrics import Metrics

#: The reason of an answer that came from a second look.
ESCALATED = "escalated"
#: What waits may take so much of the time in which all of it should be answered.
_BUSY = 0.5
#: A deadline counts as met if this many times the predicted time is there.
_CAUTION = 1.25
_DENSE = RatioSpec(0.0, 0.0)


class Escalation:
    """Second looks for one model.

    Args:
        scheduler: runs them.
        model: the value of the label.
        below: margins smaller than this are small, 0 … 1.
        limits: of the model's queue.
        metrics: the service's series.
        clock: seconds, that deadlines are given in.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        model: str,
        below: float,
        *,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._below = below
        self._most_s = min(limits.target_s, limits.max_queue_s)
        self._clock = clock
        self._counts = {
            outcome: metrics.escalations.labels(model, outcome)
            for outcome in ("confirmed", "changed", "skipped")
        }

    async def settle(self, request: Request, done: Result) -> Result:
        """The answer as it is, or the dense model's if a look at it is needed and can be afforded.

        A second look that fails leaves the first answer.

        Args:
            request: with its place given back.
            done: its answer.

        Raises:
            asyncio.CancelledError: the caller went away.
        """
        if done.ratio <= 0 or margin(done.output.logits) >= self._below:
            return done
        seconds = self._scheduler.dense_image_s
        if done.reason in ("auto:load", "auto:deadline") or not self._affordable(request, seconds):
            self._counts["skipped"].inc()
            return done
        latest = None if request.deadline is None else request.deadline - seconds
        again = Request(request.pixels, _DENSE, request.arrival, latest, request.explain)
        try:
            dense = await self._scheduler.submit(again)
        except PrunepoolError:
            self._counts["skipped"].inc()
            return done
        self._counts[
            "confirmed" if best_class(dense.output.logits) == best_class(done.output.logits) else "changed"
        ].inc()
        return combined(done, dense)

    def _affordable(self, request: Request, dense_s: float) -> bool:
        """Whether the device has time for it, and would be done with it by the deadline."""
        ahead_s = self._scheduler.drain_s
        if ahead_s + dense_s > _BUSY * self._most_s:
            return False
        left = math.inf if request.deadline is None else request.deadline - self._clock()
        return (ahead_s + dense_s) * _CAUTION <= left


def combined(first: Result, dense: Result) -> Result:
    """The dense model's answer, at the cost of both."""
    output = replace(dense.output, gmacs=first.output.gmacs + dense.output.gmacs)
    return replace(
        dense,
        output=output,
        reason=ESCALATED,
        queue_s=dense.queue_s - first.inference_s,
        inference_s=first.inference_s + dense.inference_s,
    )
