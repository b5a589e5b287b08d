"""How many engine replicas there should be, by what those that are there predict.

Ray runs this in its controller, from a copy of this file alone: it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

#: What an engine replica says of itself.
DRAIN_S, SPENT = "prunepool_drain_s", "prunepool_auto_spent"


class Context(Protocol):
    """What Ray tells a policy; `ray.serve.config.AutoscalingContext` is one."""

    @property
    def current_num_replicas(self) -> int:
        """How many replicas there are."""

    @property
    def target_num_replicas(self) -> int:
        """How many there shall be, as last decided."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """The mean of each figure of each replica over `look_back_period_s`."""


class ByDrain:
    """As many replicas as leave each so much work, and so much of `auto`'s reserve.

    Delays and the least and most replicas are Ray's settings.

    Args:
        drain_s: predicted seconds of work that a replica may have ahead, on average over time; below the 60 % of
            `target_latency_ms` at which `auto` begins to reduce.
        spent: the share of auto's reserve that may be in use on average.
    """

    def __init__(self, drain_s: float = 0.15, spent: float = 0.5) -> None:
        if not drain_s > 0 or not 0 < spent <= 1:
            raise ValueError(f"drain_s must be above 0 and spent above 0 and up to 1, not {drain_s}, {spent}")
        self._drain_s = drain_s
        self._spent = spent

    def __call__(self, context: Context) -> tuple[float, dict[str, Any]]:
        """The number wanted, and nothing to be remembered."""
        figures = context.aggregated_metrics or {}
        drain_s, spent = figures.get(DRAIN_S, {}), figures.get(SPENT, {})
        if not drain_s or not spent:
            return context.target_num_replicas, {}  # nothing is known yet: no reason to change anything
        # Those that have said nothing yet are taken to be as the others.
        number = max(1, context.current_num_replicas)
        wanted = max(_mean(drain_s) / self._drain_s, _mean(spent) / self._spent)
        return number * wanted, {}


def _mean(values: Mapping[Any, float]) -> float:
    return sum(values.values()) / len(values)
