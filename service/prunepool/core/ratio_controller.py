"""`auto`: the smallest reduction that keeps the latency target, by what the load and the device say.

One *level*, a point on a grid of ratios, holds for all `auto` requests at a time; each takes it as far as its
own maximum lets it. It goes up at once, as far as the queue needs. It comes down one step at a time, after a
pause, and only to where the device could keep up with the work that has been coming in. Without that last
condition every steady overload would swing: up because the queue is long, down because it has become short.

No clock and no I/O: the time comes with the load.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

from prunepool.core.prediction import Predictor
from prunepool.core.ratio_policy import LoadSnapshot, RatioChoice
from prunepool.core.types import RatioSpec, Request

#: Steps of the grid where no measured points make one, and the most points there are.
_STEPS, _MOST_LEVELS = 9, 16
#: The level goes up by one step where the longest wait passes the first share of the target, and as far as is
#: needed where it passes the second. Less than all of it: predictions err, and an answer has a way to go yet.
_AIM, _MOST = 0.6, 0.75
#: After the level was last needed it stays for so many targets, and each further step down takes so many.
_HOLD, _STEP = 2.0, 0.5
#: A lower level must leave the device so much of its time free, and the queue within this share of the aim.
_LOWER_BUSY, _LOWER_AIM = 0.9, 0.7
#: Work that came in counts for about so many targets.
_MEMORY = 3.0
#: A deadline counts as met if this many times the predicted time is there.
_CAUTION = 1.1
#: Levels whose worst waits are this close are the same for the purpose: the smaller one is taken.
_SAME = 1.02


def levels_for(limit: float, measured: Sequence[float] = ()) -> tuple[float, ...]:
    """The grid from 0 to the limit: through the measured ratios, or in even steps where none were measured.

    Args:
        limit: the largest ratio the model can do.
        measured: ratios of the points of its profile.
    """
    points = sorted({0.0, limit, *(ratio for ratio in measured if 0 < ratio < limit)})
    if len(points) < 3:
        points = [limit * (i / _STEPS) for i in range(_STEPS + 1)]
    if len(points) > _MOST_LEVELS:
        last = len(points) - 1
        points = [points[round(i * last / (_MOST_LEVELS - 1))] for i in range(_MOST_LEVELS)]
    return tuple(points)


class Controller:
    """The :class:`~prunepool.core.ratio_policy.RatioPolicy` that holds a latency target.

    Args:
        levels: ratios that `auto` may take, ascending from 0.
        target_s: within which every request should be answered, from its arrival.
    """

    def __init__(self, levels: Sequence[float], target_s: float) -> None:
        assert levels[0] == 0, "auto starts from the dense model"
        self._levels = tuple(levels)
        self._target_s = target_s
        self._level = 0
        #: When the level may next come down.
        self._down_at = -math.inf
        #: Device seconds a second that the recent work would need, at each level, as of `_work_at`.
        self._work = [0.0] * len(levels)
        self._work_at = 0.0
        #: Of the same time, what other models have taken, as of then.
        self._taken = 0.0

    def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
        """Set the level for the load; what is returned chooses for the requests of the coming batch."""
        level, self._down_at = self._settled(load.now, load)
        needed = max(self._needed(load, _MOST), min(self._needed(load, _AIM), level + 1))
        if needed and needed >= level:
            self._down_at = load.now + _HOLD * self._target_s
        self._level = max(level, needed)
        return self._chooser(load, self._levels[self._level])

    def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
        """The ratio that a ratio_spec would get now, if no more came."""
        return self._ratio(ratio_spec, self._levels[self._settled(now)[0]])

    def _ratio(self, ratio_spec: RatioSpec, ratio: float) -> float:
        return min(ratio, ratio_spec.maximum) if ratio_spec.requested is None else ratio_spec.requested

    def _settled(self, now: float, load: LoadSnapshot | None = None) -> tuple[int, float]:
        """The level after the steps down that are due by now, and when the next one may be."""
        level, down_at = self._level, self._down_at
        pause = _STEP * self._target_s
        while level and down_at <= now:
            if not self._would_do(level - 1, now, load):
                return level, now + pause
            level, down_at = level - 1, down_at + pause
        return level, down_at

    def _would_do(self, level: int, now: float, load: LoadSnapshot | None) -> bool:
        """Whether a lower level would be enough, and not for a moment only."""
        taken = self._taken * self._fading(now) if load is None else load.taken
        if self._work[level] * self._fading(now) + taken > _LOWER_BUSY:
            return False
        return load is None or self._worst_wait(load, level) <= _LOWER_AIM * _AIM * self._target_s

    def _needed(self, load: LoadSnapshot, share: float) -> int:
        """The smallest level that keeps everybody's wait within a share of the target, or comes closest."""
        waits: list[float] = []
        for level in range(len(self._levels)):
            waits.append(self._worst_wait(load, level))
            if waits[-1] <= share * self._target_s:
                return level
        return next(level for level, wait in enumerate(waits) if wait <= min(waits) * _SAME)

    def _worst_wait(self, load: LoadSnapshot, level: int) -> float:
        """The longest time from arrival to answer, predicted, of all that wait or are on their way.

        Takes every run to have the same mix of requests, so that only the oldest of each run matters.
        """
        images: Counter[float] = Counter()
        for ratio_specs in (load.ratio_specs, load.arriving):
            for ratio_spec, count in ratio_specs.items():
                images[self._ratio(ratio_spec, self._levels[level])] += count
        drain = load.predictor.drain(images)
        worst = load.busy_s + drain.seconds  # of whoever comes last and has not waited yet
        end, last_end = load.busy_s, worst
        for oldest in islice(load.waiting, 0, None, drain.images_per_run):
            end = min(end + drain.run_s, last_end)
            worst = max(worst, load.now - oldest.arrival + end)
        return worst

    def _chooser(self, load: LoadSnapshot, level: float) -> Callable[[Request], RatioChoice]:
        """Chooses for one request after the other of one batch, and counts the work they are."""
        batch: Counter[float] = Counter()
        work: dict[RatioSpec, list[float]] = {}
        self._forget(load.now)
        self._taken = load.taken

        def choose(request: Request) -> RatioChoice:
            choice = self._choose(request, level, batch, load)
            batch[choice.ratio] += 1
            if request.ratio_spec not in work:
                work[request.ratio_spec] = self._work_of(request.ratio_spec, load.predictor)
            self._work = [sum(pair) for pair in zip(self._work, work[request.ratio_spec], strict=True)]
            return choice

        return choose

    def _choose(
        self, request: Request, level: float, batch: Counter[float], load: LoadSnapshot
    ) -> RatioChoice:
        ratio_spec = request.ratio_spec
        if ratio_spec.requested is not None:
            return RatioChoice(ratio_spec.requested, "requested")
        usual = self._ratio(ratio_spec, level)
        if request.deadline is not None:
            left = (request.deadline - load.now - load.busy_s) / _CAUTION
            ratio = usual
            for ratio in (
                usual,
                *(r for r in self._levels if usual < r < ratio_spec.maximum),
                ratio_spec.maximum,
            ):
                if load.predictor.run_s(batch + Counter({ratio: 1})) <= left:
                    break
            if ratio > usual:
                return RatioChoice(ratio, "auto:deadline")
        return RatioChoice(usual, "auto:load" if usual > 0 else "auto:idle")

    def _fading(self, now: float) -> float:
        """What is left by now of the work that was remembered."""
        return math.exp(-max(0.0, now - self._work_at) / (_MEMORY * self._target_s))

    def _forget(self, now: float) -> None:
        fading = self._fading(now)
        self._work = [work * fading for work in self._work]
        self._work_at = now

    def _work_of(self, ratio_spec: RatioSpec, predictor: Predictor) -> list[float]:
        """What a request of this ratio_spec adds to the remembered work, at each level."""
        memory_s = _MEMORY * self._target_s
        return [predictor.image_s(self._ratio(ratio_spec, ratio)) / memory_s for ratio in self._levels]
