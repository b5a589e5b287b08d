"""How many engine replicas there must be, by what the present ones predict.

Ray runs this in its controller, from a copy of this file alone: it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

#: The metrics that an engine replica reports to Ray.
DRAIN_S, SPENT = "prunepool_drain_s", "prunepool_auto_spent"


class Context(Protocol):
    """What Ray passes to a policy; `ray.serve.config.AutoscalingContext` is one."""

    @property
    def current_num_replicas(self) -> int:
        """How many replicas there are."""

    @property
    def target_num_replicas(self) -> int:
        """How many there must be, as last decided."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None:
        """The mean of each metric of each replica over `look_back_period_s`."""


class ByDrain:
    """Keeps the work of each replica, and its use of `auto`'s reserve, at a target.

    Delays and the least and most replicas are settings of Ray.

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
        """The number of replicas wanted, and no state for the next call."""
        metrics = context.aggregated_metrics or {}
        drain_s, spent = metrics.get(DRAIN_S, {}), metrics.get(SPENT, {})
        if not drain_s or not spent:
            return context.target_num_replicas, {}  # no replica has reported yet: change nothing
        # Replicas that have not reported yet count as the mean of the others.
        number = max(1, context.current_num_replicas)
        wanted = max(_mean(drain_s) / self._drain_s, _mean(spent) / self._spent)
        return number * wanted, {}


def _mean(values: Mapping[Any, float]) -> float:
    return sum(values.values()) / len(values)
