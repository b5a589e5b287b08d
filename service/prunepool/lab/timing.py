"""Timing on a noisy machine: candidates alternate, and medians of one run are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: A candidate that takes fewer seconds is run once before it is timed: threads of another library, which look
#: for work for a while after the last candidate, would take a core from it.
_SHORT_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Times of one candidate, in seconds.

    Attributes:
        median: of all rounds.
        low: the 10th percentile.
        high: the 90th percentile.
        rounds: number of measured rounds.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, seconds: list[float]) -> Sample:
        """Summarise measured times; at least one."""
        ordered = sorted(seconds)
        last = len(ordered) - 1
        return cls(
            median=statistics.median(ordered),
            low=ordered[round(0.1 * last)],
            high=ordered[round(0.9 * last)],
            rounds=len(ordered),
        )


def take_turns(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    wait: Callable[[], object] = lambda: None,
    advance: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Sample]:
    """Time every candidate once per round, so that a slow minute affects all of them.

    Args:
        candidates: functions to time, by name.
        rounds: measured rounds; one more comes first and does not count. A short candidate runs twice per
            round, and the second run counts.
        wait: returns when the device has finished.
        advance: called after each timed call, for a progress bar.
        clock: a monotonic clock, in seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    short: set[str] = set()

    def timed(candidate: Callable[[], object]) -> float:
        wait()
        start = clock()
        candidate()
        wait()
        return clock() - start

    for turn in range(rounds + 1):
        for name, candidate in candidates.items():
            if name in short:
                candidate()
            taken = timed(candidate)
            if turn:
                seconds[name].append(taken)
            elif taken < _SHORT_S:
                short.add(name)
            advance()
    return {name: Sample.of(times) for name, times in seconds.items()}
