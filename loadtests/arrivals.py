"""When requests come: open-loop traces, made beforehand, so that no answer can hold the next request back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

#: Requests a second at a time since the beginning.
Rate = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Trace:
    """Times of arrivals, in seconds since the beginning.

    Attributes:
        name: what it is called in reports.
        seconds: how long it lasts.
        times: ascending.
    """

    name: str
    seconds: float
    times: tuple[float, ...]


def arrivals(rate: Rate, most: float, seconds: float, source: random.Random) -> tuple[float, ...]:
    """A Poisson process whose rate may change, by thinning.

    Args:
        rate: never above `most`.
        most: requests a second.
        seconds: how long.
        source: of randomness.
    """
    times: list[float] = []
    now = source.expovariate(most)
    while now < seconds:
        if source.random() * most < rate(now):
            times.append(now)
        now += source.expovariate(most)
    return tuple(times)


def poisson(name: str, rate: float, seconds: float, source: random.Random) -> Trace:
    """One rate all the time."""
    return Trace(name, seconds, arrivals(lambda now: rate, rate, seconds, source))


def bursty(name: str, low: float, high: float, seconds: float, source: random.Random) -> Trace:
    """Two rates in turn, each for a random time of 1 to 4 seconds."""
    edges = [0.0]
    while edges[-1] < seconds:
        edges.append(edges[-1] + source.uniform(1.0, 4.0))
    spans = [(start, end, high if i % 2 else low) for i, (start, end) in enumerate(pairwise(edges))]

    def rate(now: float) -> float:
        return next(value for start, end, value in spans if start <= now < end)

    return Trace(name, seconds, arrivals(rate, max(low, high), seconds, source))


def step(name: str, low: float, high: float, seconds: float, source: random.Random) -> Trace:
    """The low rate for the first quarter and the last, the high one between."""

    def rate(now: float) -> float:
        return high if seconds / 4 <= now < 3 * seconds / 4 else low

    return Trace(name, seconds, arrivals(rate, max(low, high), seconds, source))
