"""Estimates speedups from alternating phases, with confidence intervals, and compares them with predictions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shapes import Phase
from throughput import throughput

#: Two-sided 95 % quantiles of Student's t, by degrees of freedom from 1.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        phase: in which it was asked for.
        sent: seconds since the run began.
        answered: the same.
        error: what was wrong with it; None if nothing was.
    """

    phase: int | None
    sent: float
    answered: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Speedup:
    """Images/s at a ratio over those at ratio 0.

    Attributes:
        ratio: as it was asked for.
        images_per_s: in each round.
        mean: geometric, over the rounds.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        p50_ms: median latency.
        p99_ms: 99th percentile of the latency.
    """

    ratio: str
    images_per_s: tuple[float, ...]
    mean: float
    low: float
    high: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A speedup and its prediction.

    Attributes:
        speedup: as measured.
        predicted: images/s over ratio 0.
        needed: the least that is accepted.
        shown: whether the measurement is that large, and its interval clear of 1 where more than 1 is claimed.
    """

    speedup: Speedup
    predicted: float
    needed: float
    shown: bool


def quiet_rounds(phases: Sequence[Phase], others: Callable[[float, float], float], most: float) -> set[int]:
    """Return the rounds in which other programs used little CPU.

    Args:
        phases: of the run.
        others: the share of the cores that others took between two times of the run.
        most: of it that is borne.
    """
    loud = {phase.round for phase in phases if others(phase.start, phase.end) > most}
    return {phase.round for phase in phases if phase.round >= 0} - loud


def rates(answers: Sequence[Answer], phases: Sequence[Phase], settle_s: float) -> dict[str, list[float]]:
    """Return the images/s of each round, by ratio.

    The beginning of a phase does not count: the server still has images of the one before.

    Args:
        answers: of the whole run.
        phases: of it; those of round -1 are left out.
        settle_s: how long the beginning of a phase is.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for phase in phases:
        if phase.round < 0:
            continue
        start = phase.start + settle_s
        good = [one.answered for one in answers if one.error is None]
        found.setdefault(phase.ratio, []).append((phase.round, throughput(good, start, phase.end)))
    return {ratio: [rate for _, rate in sorted(those)] for ratio, those in found.items()}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval of a mean, by Student's t; infinite for one value."""
    if len(values) < 2:
        return -math.inf, math.inf
    t = _T95[min(len(values) - 1, len(_T95)) - 1]
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def speedups(answers: Sequence[Answer], phases: Sequence[Phase], settle_s: float) -> list[Speedup]:
    """Return the speedup at each ratio, relative to the phase at ratio 0 of the same round.

    Args:
        answers: of the whole run.
        phases: of it; their first ratio is the one to compare with.
        settle_s: how long the beginning of a phase is, which does not count.

    Raises:
        ValueError: a phase without an answer.
    """
    by_ratio = rates(answers, phases, settle_s)
    dense = by_ratio[phases[0].ratio]
    numbers = {ratio: {p.number for p in phases if p.ratio == ratio and p.round >= 0} for ratio in by_ratio}
    made = []
    for ratio, those in by_ratio.items():
        if not min(those) or not min(dense):
            raise ValueError(f"a phase at ratio {ratio} or at {phases[0].ratio} has no answer")
        logs = [math.log(rate / base) for rate, base in zip(those, dense, strict=True)]
        low, high = interval(logs)
        waits = sorted(
            one.answered - one.sent for one in answers if one.phase in numbers[ratio] and one.error is None
        )
        made.append(
            Speedup(
                ratio=ratio,
                images_per_s=tuple(those),
                mean=math.exp(statistics.fmean(logs)),
                low=math.exp(low),
                high=math.exp(min(high, 50.0)),
                p50_ms=waits[round(0.5 * (len(waits) - 1))] * 1000,
                p99_ms=waits[round(0.99 * (len(waits) - 1))] * 1000,
            )
        )
    return made


def judge(measured: Sequence[Speedup], predicted: Mapping[str, float], keep: float) -> list[Verdict]:
    """Compare speedups with their predictions; a ratio compared with itself gets no verdict.

    Args:
        measured: the first is ratio 0.
        predicted: by ratio.
        keep: the share of the predicted gain, in images/s, that has to arrive over HTTP.
    """
    verdicts = []
    for one in measured[1:]:
        claim = predicted[one.ratio]
        needed = 1 + keep * (claim - 1)
        shown = one.mean >= needed and (claim <= 1 or one.low > 1)
        verdicts.append(Verdict(one, claim, needed, shown))
    return verdicts
