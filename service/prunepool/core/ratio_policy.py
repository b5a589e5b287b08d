"""Which ratio a request runs at: decided when its batch is formed, not when it arrives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prunepool.core.prediction import Predictor
from prunepool.core.types import Dial, Request


class Choice(NamedTuple):
    """A ratio and why that one."""

    ratio: float
    reason: str


@dataclass(frozen=True, slots=True)
class Load:
    """What can be known when a batch is about to be formed.

    Attributes:
        now: the time.
        waiting: the requests that wait, oldest first, those of the coming batch among them; valid during
            the call only.
        dials: how many of them there are of each dial.
        arriving: accepted requests that are still being decoded, by dial.
        busy_s: predicted seconds until the device has finished what it was given, and other models their turns.
        predictor: how long a run takes.
        taken: the share of the device's time that other models have taken of late.
    """

    now: float
    waiting: Collection[Request]
    dials: Mapping[Dial, int]
    arriving: Mapping[Dial, int]
    busy_s: float
    predictor: Predictor
    taken: float = 0.0


class RatioPolicy(Protocol):
    """Turns dials into ratios.

    A policy may keep state between batches (for hysteresis); it has no clock. Called on one thread.
    """

    def plan(self, load: Load) -> Callable[[Request], Choice]:
        """Look at the load, once for each batch; what is returned chooses for the requests of that batch."""

    def forecast(self, dial: Dial, now: float) -> float:
        """The ratio that a dial would get now, for predicting cost; changes no state."""


class DefaultRatio:
    """Fixed requests run at what they asked for, `auto` at the model's default.

    Args:
        default: the ratio of `auto`, where the request's maximum allows it.
    """

    def __init__(self, default: float) -> None:
        self._default = default

    def plan(self, load: Load) -> Callable[[Request], Choice]:
        """The load changes nothing here."""
        return lambda request: self._choose(request.dial)

    def forecast(self, dial: Dial, now: float) -> float:
        """The ratio that a dial gets at any time."""
        return self._choose(dial).ratio

    def _choose(self, dial: Dial) -> Choice:
        if dial.requested is not None:
            return Choice(dial.requested, "requested")
        return Choice(min(self._default, dial.maximum), "auto:default")
