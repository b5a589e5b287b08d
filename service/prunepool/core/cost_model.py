"""The cost model: predicts how long a batch takes. Fitted at warm-up, corrected with every batch since.

    seconds = a · runs + b · GMACs + c · further plans + d · reduced images + e · idle_before

A *run* is one batch on the device. `a` is the fixed cost of a run, `c` what each plan beyond a batch's first adds
(its own attention and reduction), `d` the scoring and matching of an image whose tokens are reduced, which its
GMACs do not count. `e` is the penalty of an idle device: its threads have gone to sleep, and the operating system
may wake two of them on one core before it notices that another is free.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Effort(NamedTuple):
    """What the time of one or several runs depends on.

    Attributes:
        runs: how many runs.
        gmacs: billions of multiply-accumulates in all.
        further_plans: distinct plans of each run beyond its first, summed over the runs.
        reduced: images whose tokens are reduced.
        idle_before: runs that start on a device that was idle for :data:`IDLE_S` or longer.
    """

    runs: float
    gmacs: float
    further_plans: float
    reduced: float
    idle_before: float = 0


def effort(
    images: Mapping[float, int], gmacs: Callable[[float], float], *, idle_before: bool = False
) -> Effort:
    """The effort of one run.

    Args:
        images: how many at each ratio; at least one.
        gmacs: of one image at a ratio.
        idle_before: whether the device was idle before.
    """
    return Effort(
        runs=1,
        gmacs=sum(count * gmacs(ratio) for ratio, count in images.items()),
        further_plans=len(images) - 1,
        reduced=sum(count for ratio, count in images.items() if ratio > 0),
        idle_before=float(idle_before),
    )


class TimedBatch(NamedTuple):
    """The time that one run took."""

    effort: Effort
    seconds: float


#: A device counts as idle after so many seconds without work.
IDLE_S = 0.08
#: A further coefficient has to explain the warm-up this much better (in relative error) to be believed.
_WORTH = 0.003
#: How wrong one timing is, and how far speed drifts from one batch to the next, all terms together and each
#: by itself; relative. Their quotient makes about the last five batches count.
_NOISE, _COMMON_DRIFT, _OWN_DRIFT = 0.15, 0.05, 0.01
#: How wrong a coefficient may be after warm-up, and ever; relative.
_DOUBT, _MOST_DOUBT = 0.2, 0.5
#: A term that the warm-up did not show may still come to be this share of the fastest run. The warm-up never shows
#: the idle penalty.
_UNSEEN = Effort(0.02, 0.0, 0.02, 0.02, 0.5)
#: How far a batch may be off, relative, before it counts as an outlier; doubles for each that follows on the
#: same side, so that a single stall is shrugged off and a device that has become slow is believed.
_OUTLIER = 0.4
#: A coefficient stays within so many times what the warm-up found.
_MOST_CHANGE = 1000.0


class CostModel:
    """Seconds for an effort, for one model on one device; no clock.

    Online it is a Kalman filter on the coefficients: least squares that forgets. What makes a device
    slower makes most often all of its work slower, so the coefficients are believed to drift together.
    """

    def __init__(self) -> None:
        self._theta: Vector = np.zeros(len(Effort._fields))
        self._first = self._theta
        self._scale = self._theta
        self._doubt = np.zeros((len(self._theta), len(self._theta)))
        self._outliers = 0

    @property
    def fitted(self) -> bool:
        """Whether any batch has been observed; else every prediction is 0 s."""
        return bool(self._theta.any())

    @property
    def coefficients(self) -> dict[str, float]:
        """Seconds for one unit of each part of an effort."""
        return dict(zip(Effort._fields, self._theta.tolist(), strict=True))

    def seconds(self, effort: Effort) -> float:
        """Predicted time; 0 before anything was measured."""
        return float(sum(map(mul, self._theta.tolist(), effort)))

    def fit(self, measured: Sequence[TimedBatch]) -> None:
        """Start from timed runs, forgetting what was known; runs that took no time say nothing."""
        rows = [one for one in measured if one.seconds > 0]
        if not rows:
            return
        x = np.array([one.effort for one in rows], float)
        y = np.array([one.seconds for one in rows])
        self._theta = _explain(x / y[:, None])
        self._first = self._theta
        self._scale = np.maximum(self._theta, np.array(_UNSEEN) * y.min())
        self._doubt = np.diag((_DOUBT * self._scale) ** 2)
        self._outliers = 0

    def observe(self, effort: Effort, seconds: float) -> float | None:
        """Take in a batch that was run.

        Returns:
            How far the prediction was off: |predicted / actual − 1|; None where nothing was predicted.
        """
        if seconds <= 0:
            return None
        if not self.fitted:
            self.fit([TimedBatch(effort, seconds)])
            return None
        predicted = self.seconds(effort)
        self._correct(np.array(effort, float), seconds, predicted)
        return abs(predicted / seconds - 1)

    def _correct(self, x: Vector, seconds: float, predicted: float) -> None:
        doubt = self._doubt + _COMMON_DRIFT**2 * np.outer(self._theta, self._theta)
        doubt += np.diag((_OWN_DRIFT * self._scale) ** 2)
        noise = (_NOISE * predicted) ** 2
        gain = doubt @ x / (x @ doubt @ x + noise)
        theta = self._theta + gain * self._believed(seconds / predicted - 1) * predicted
        doubt -= np.outer(gain, x @ doubt)
        self._theta = np.clip(theta, self._first / _MOST_CHANGE, self._scale * _MOST_CHANGE)
        most = _MOST_DOUBT * np.maximum(self._scale, self._theta)
        shrink = np.minimum(1.0, most / np.sqrt(np.maximum(np.diag(doubt), 1e-300)))
        self._doubt = doubt * np.outer(shrink, shrink)

    def _believed(self, error: float) -> float:
        """A relative error, cut to what is believed of it."""
        side = 1 if error > 0 else -1
        before = self._outliers if self._outliers * side > 0 else 0
        limit = _OUTLIER * 2.0 ** abs(before)
        self._outliers = before + side if abs(error) > _OUTLIER and abs(before) < 8 else 0
        return max(-limit, min(limit, error))


def _explain(x: Vector) -> Vector:
    """Coefficients of at least 0 whose predictions `x @ theta` come close to 1 in the mean square.

    Tries every set of terms that contains the GMACs, the smallest first, and takes a larger one only if it
    explains clearly more: what noise alone suggests would be wrong for the next batch.

    Args:
        x: efforts over seconds, [runs, terms].
    """
    core = Effort._fields.index("gmacs")
    others = [i for i in range(x.shape[1]) if i != core]
    best, best_score = np.zeros(x.shape[1]), np.inf
    for size in range(len(others) + 1):
        for chosen in itertools.combinations(others, size):
            terms = [core, *chosen]
            if np.linalg.matrix_rank(x[:, terms]) < len(terms):
                continue
            part = np.linalg.lstsq(x[:, terms], np.ones(len(x)), rcond=None)[0]
            if part[0] <= 0 or (part < 0).any():
                continue
            score = float(np.sqrt(np.mean((x[:, terms] @ part - 1) ** 2))) + _WORTH * size
            if score < best_score - 1e-12:
                best, best_score = np.zeros(x.shape[1]), score
                best[terms] = part
    return best
