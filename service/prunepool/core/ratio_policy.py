"""Which ratio a request runs at: decided when its batch is formed, not when it arrives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from prunepool.core.prediction import Predictor
from prunepool.core.types import RatioSpec, Request


class RatioChoice(NamedTuple):
    """A ratio, and the reason for it."""

    ratio: float
    reason: str


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """What a policy sees when a batch is about to be formed.

    Attributes:
        now: the time.
        waiting: the requests that wait, oldest first, including those of the coming batch; valid during the
            call only.
        ratio_specs: the number of them for each ratio_spec.
        arriving: accepted requests that are still being decoded, by ratio_spec.
        busy_s: predicted seconds until the device is free: it has finished its batches, and other models theirs.
        predictor: predicts how long a batch takes.
        taken: the share of the device's time that other models have taken recently.
    """

    now: float
    waiting: Collection[Request]
    ratio_specs: Mapping[RatioSpec, int]
    arriving: Mapping[RatioSpec, int]
    busy_s: float
    predictor: Predictor
    taken: float = 0.0


class RatioPolicy(Protocol):
    """Turn ratio specs into ratios.

    A policy may keep state between batches (for hysteresis); it has no clock. Called on one thread.
    """

    def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
        """Decide for the load, once for each batch; the returned function chooses for that batch's requests.

        It may be called for a request that then does not fit into the batch.
        """

    def charge(self, requests: Sequence[Request], predictor: Predictor) -> None:
        """Count the requests of a batch once it is cut: each exactly once, also if its batch runs again."""

    def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
        """The ratio that a ratio_spec would get now, for predicting cost; changes no state."""


class DefaultRatio:
    """Fixed requests run at what they asked for, `auto` at the model's default.

    Args:
        default: the ratio of `auto`, if the request's maximum allows it.
    """

    def __init__(self, default: float) -> None:
        self._default = default

    def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
        """The load changes nothing here."""
        return lambda request: self._choose(request.ratio_spec)

    def charge(self, requests: Sequence[Request], predictor: Predictor) -> None:
        """The work changes nothing here."""

    def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
        """The ratio that a ratio_spec gets at any time."""
        return self._choose(ratio_spec).ratio

    def _choose(self, ratio_spec: RatioSpec) -> RatioChoice:
        if ratio_spec.requested is not None:
            return RatioChoice(ratio_spec.requested, "requested")
        return RatioChoice(min(self._default, ratio_spec.maximum), "auto:default")
