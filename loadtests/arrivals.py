"""Open-loop traces of arrival times, made before the run, so that slow responses do not delay requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

#: Maps seconds since the start to requests per second.
Rate = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrival times, in seconds since the start.

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
    """A constant rate."""
    return Trace(name, seconds, arrivals(lambda now: rate, rate, seconds, source))


def bursty(name: str, low: float, high: float, seconds: float, source: random.Random) -> Trace:
    """Two rates that alternate, each for a random time of 1 to 4 seconds."""
    edges = [0.0]
    while edges[-1] < seconds:
        edges.append(edges[-1] + source.uniform(1.0, 4.0))
    spans = [(start, end, high if i % 2 else low) for i, (start, end) in enumerate(pairwise(edges))]

    def rate(now: float) -> float:
        return next(value for start, end, value in spans if start <= now < end)

    return Trace(name, seconds, arrivals(rate, max(low, high), seconds, source))


def step(name: str, low: float, high: float, seconds: float, source: random.Random) -> Trace:
    """The low rate in the first and last quarter, the high one between them."""

    def rate(now: float) -> float:
        return high if seconds / 4 <= now < 3 * seconds / 4 else low

    return Trace(name, seconds, arrivals(rate, max(low, high), seconds, source))
