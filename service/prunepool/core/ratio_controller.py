"""`auto`: the smallest reduction that keeps the latency target, given the queue and the device.

All `auto` requests share one *level*, an index into a grid of ratios; each request follows it up to its own
maximum. The level rises at once, as far as the queue needs. It falls one step at a time, after a pause, and only to
where the device could keep up with recent arrivals. Without that last condition the level would oscillate under
every steady overload: up because the queue is long, down because it has become short.

Removing tokens takes time itself, which on a small model or a fast processor can be more than it saves. So a
request follows the level only to the fastest ratio on the way: no ratio is applied that is predicted to be slower
than a smaller one.

No clock and no I/O: the time comes with the load.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice

from prunepool.core.prediction import Predictor
from prunepool.core.ratio_policy import LoadSnapshot, RatioChoice
from prunepool.core.types import RatioSpec, Request

#: Steps of the grid of a model without measured ratios, and the largest number of levels.
_STEPS, _MAX_LEVELS = 9, 16
#: Longest wait, as a share of target_s, above which the level rises by one step / by as many as needed.
#: Less than 1: predictions err, and the answer still has to reach the client.
_STEP_UP_SHARE, _JUMP_UP_SHARE = 0.6, 0.75
#: In multiples of target_s: how long the level is held after it was last needed, and the pause between further
#: steps down.
_HOLD, _STEP_DOWN_PAUSE = 2.0, 0.5
#: A lower level must keep the utilisation of the device below the first, and the longest wait within this share of
#: the one above which the level would rise again.
_SUSTAINABLE_UTILISATION, _STEP_DOWN_MARGIN = 0.9, 0.7
#: The time constant of the averages below, in multiples of target_s.
_MEMORY = 3.0
#: A request is predicted to meet its deadline if this many times the predicted time is left.
_DEADLINE_MARGIN = 1.1
#: Levels whose longest waits differ by less than this factor are equally good: the smallest of them is taken. So
#: are ratios whose images take as long.
_EQUAL_WAITS = 1.02

#: The longest predicted wait at a level, in seconds.
Waits = Callable[[int], float]


def ratio_grid(limit: float, measured: Sequence[float] = ()) -> tuple[float, ...]:
    """The ratio of each level, from 0 to the limit: the measured ratios, or even steps if none were measured.

    Args:
        limit: the largest ratio the model supports.
        measured: ratios of the points of its profile.
    """
    points = sorted({0.0, limit, *(ratio for ratio in measured if 0 < ratio < limit)})
    if len(points) < 3:
        points = [limit * (i / _STEPS) for i in range(_STEPS + 1)]
    if len(points) > _MAX_LEVELS:
        last = len(points) - 1
        points = [points[round(i * last / (_MAX_LEVELS - 1))] for i in range(_MAX_LEVELS)]
    return tuple(points)


def fastest_up_to(grid: Sequence[float], predictor: Predictor) -> Callable[[float], float]:
    """Maps a ratio to the one among it and the smaller levels at which an image takes the least time.

    A larger ratio has to be clearly faster than the smaller ones: it costs accuracy.

    Args:
        grid: the ratio of each level, ascending from 0.
        predictor: of the time of an image.
    """
    seconds = cache(predictor.image_s)
    #: The levels of which each is faster than all before it.
    faster = [grid[0]]
    for ratio in grid[1:]:
        if seconds(ratio) * _EQUAL_WAITS < seconds(faster[-1]):
            faster.append(ratio)

    @cache
    def fastest(ratio: float) -> float:
        best = faster[bisect_right(faster, ratio) - 1]
        return ratio if seconds(ratio) * _EQUAL_WAITS < seconds(best) else best

    return fastest


class Controller:
    """The :class:`~prunepool.core.ratio_policy.RatioPolicy` that holds a latency target.

    Args:
        grid: the ratio of each level, ascending from 0.
        target_s: the latency target: seconds from a request's arrival to its answer.
    """

    def __init__(self, grid: Sequence[float], target_s: float) -> None:
        assert grid[0] == 0, "auto starts from the dense model"
        self._grid = tuple(grid)
        self._target_s = target_s
        self._level = 0
        #: When the level may next come down.
        self._down_at = -math.inf
        #: Device utilisation that recent arrivals would cause at each level, as of `_work_at`.
        self._work = [0.0] * len(grid)
        self._work_at = 0.0
        #: Share of device time used by other models over the same window, as of `_work_at`.
        self._taken = 0.0
        #: From a ratio to the fastest one that is not larger, as of the last load.
        self._fastest: Callable[[float], float] = lambda ratio: ratio

    def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
        """Set the level for the load; the returned function chooses for the requests of the coming batch."""
        self._fastest = fastest_up_to(self._grid, load.predictor)

        @cache
        def waits(level: int) -> float:
            return self._longest_wait(load, level)

        self._fade(load)
        level, self._down_at = self._settled(load.now, waits)
        needed = max(
            self._needed(waits, _JUMP_UP_SHARE), min(self._needed(waits, _STEP_UP_SHARE), self._next(level))
        )
        if needed and needed >= level:
            self._down_at = load.now + _HOLD * self._target_s
        self._level = max(level, needed)
        return self._chooser(load, self._grid[self._level])

    def charge(self, requests: Sequence[Request], predictor: Predictor) -> None:
        """Add the work of a batch's requests, at every level, to that of recent arrivals."""
        for ratio_spec, count in Counter(request.ratio_spec for request in requests).items():
            for level, work in enumerate(self._work_of(ratio_spec, predictor)):
                self._work[level] += count * work

    def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
        """The ratio that a ratio_spec would get now, if no further request arrived."""
        return self._ratio(ratio_spec, self._grid[self._settled(now)[0]])

    def _ratio(self, ratio_spec: RatioSpec, auto: float) -> float:
        if ratio_spec.requested is not None:
            return ratio_spec.requested
        return self._fastest(min(auto, ratio_spec.maximum))

    def _settled(self, now: float, waits: Waits | None = None) -> tuple[int, float]:
        """The level after the steps down that are due by now, and when the next one is due."""
        level, down_at = self._level, self._down_at
        pause = _STEP_DOWN_PAUSE * self._target_s
        while level and down_at <= now:
            if not self._sustainable(level - 1, now, waits):
                return level, now + pause
            level, down_at = level - 1, down_at + pause
        return level, down_at

    def _sustainable(self, level: int, now: float, waits: Waits | None) -> bool:
        """Whether a lower level could keep up with recent arrivals, not just the current queue."""
        if (self._work[level] + self._taken) * self._fading(now) > _SUSTAINABLE_UTILISATION:
            return False
        return waits is None or waits(level) <= _STEP_DOWN_MARGIN * _STEP_UP_SHARE * self._target_s

    def _next(self, level: int) -> int:
        """The next level at which a larger ratio is applied; the last one, if there is none."""
        applied = self._fastest(self._grid[level])
        higher = range(level + 1, len(self._grid))
        return next((one for one in higher if self._fastest(self._grid[one]) > applied), len(self._grid) - 1)

    def _needed(self, waits: Waits, share: float) -> int:
        """The smallest level that keeps the longest wait within a share of the target, or comes closest."""
        for level in range(len(self._grid)):
            if waits(level) <= share * self._target_s:
                return level
        shortest = min(map(waits, range(len(self._grid))))
        return next(level for level in range(len(self._grid)) if waits(level) <= shortest * _EQUAL_WAITS)

    def _longest_wait(self, load: LoadSnapshot, level: int) -> float:
        """The longest predicted time from arrival to answer of all requests that wait or are being decoded.

        Assumes that every batch has the same mix of requests, so that only the oldest of each batch matters.
        """
        images: Counter[float] = Counter()
        for ratio_specs in (load.ratio_specs, load.arriving):
            for ratio_spec, count in ratio_specs.items():
                images[self._ratio(ratio_spec, self._grid[level])] += count
        drain = load.predictor.drain(images)
        longest = load.busy_s + drain.seconds  # of the request that arrived last and has not waited yet
        end, last_end = load.busy_s, longest
        for oldest in islice(load.waiting, 0, None, drain.images_per_run):
            end = min(end + drain.run_s, last_end)
            longest = max(longest, load.now - oldest.arrival + end)
        return longest

    def _chooser(self, load: LoadSnapshot, auto: float) -> Callable[[Request], RatioChoice]:
        """Chooses for the requests of one batch, in order, given the choices so far."""
        batch: Counter[float] = Counter()

        def choose(request: Request) -> RatioChoice:
            choice = self._choose(request, auto, batch, load)
            batch[choice.ratio] += 1
            return choice

        return choose

    def _choose(
        self, request: Request, auto: float, batch: Counter[float], load: LoadSnapshot
    ) -> RatioChoice:
        """The ratio of one request: that of the level, or a larger one if its deadline needs it.

        Args:
            request: the request.
            auto: the ratio of the level.
            batch: images of the batch so far, by ratio.
            load: the load that the batch is planned for.
        """
        ratio_spec = request.ratio_spec
        if ratio_spec.requested is not None:
            return RatioChoice(ratio_spec.requested, "requested")
        usual = self._ratio(ratio_spec, auto)
        if request.deadline is not None:
            left = (request.deadline - load.now - load.busy_s) / _DEADLINE_MARGIN
            larger = (*(r for r in self._grid if usual < r < ratio_spec.maximum), ratio_spec.maximum)
            candidates = dict.fromkeys((usual, *map(self._fastest, larger)))
            ratio = next(
                (r for r in candidates if load.predictor.run_s(batch + Counter({r: 1})) <= left),
                self._fastest(ratio_spec.maximum),
            )
            if ratio > usual:
                return RatioChoice(ratio, "auto:deadline")
        return RatioChoice(usual, "auto:load" if usual > 0 else "auto:idle")

    def _fading(self, now: float) -> float:
        """The factor by which `_work` and `_taken` have decayed since `_work_at`."""
        return math.exp(-max(0.0, now - self._work_at) / (_MEMORY * self._target_s))

    def _fade(self, load: LoadSnapshot) -> None:
        """Bring `_work` and `_taken` up to the time of a load."""
        fading = self._fading(load.now)
        self._work = [work * fading for work in self._work]
        self._work_at = load.now
        self._taken = load.taken

    def _work_of(self, ratio_spec: RatioSpec, predictor: Predictor) -> list[float]:
        """The utilisation that one request of this ratio_spec adds at each level."""
        memory_s = _MEMORY * self._target_s
        return [predictor.image_s(self._ratio(ratio_spec, ratio)) / memory_s for ratio in self._grid]
