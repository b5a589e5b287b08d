"""One `/metrics` for the whole application: every replica's series, told apart by the label `replica`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric

#: Seconds between two words of a replica, and after which one that says nothing is forgotten.
EVERY_S, FORGET_S = 1.0, 10.0
LABEL = "replica"


class MetricsAggregator:
    """What replicas said last; a deployment of its own.

    Without it, `/metrics` shows what was known last.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, list[Metric]]] = {}

    async def tell(self, replica: str, families: list[Metric]) -> None:
        """Replace what a replica said before."""
        self._said[replica] = self._clock(), families

    async def all(self) -> dict[str, list[Metric]]:
        """What those say that are still there."""
        now = self._clock()
        self._said = {name: said for name, said in self._said.items() if now - said[0] < FORGET_S}
        return {name: families for name, (_, families) in self._said.items()}


class Collected:
    """For an ingress's registry: its own series as they are, those of others as they were told."""

    def __init__(self, replica: str, own: CollectorRegistry) -> None:
        self._replica = replica
        self._own = own
        self.others: Mapping[str, list[Metric]] = {}

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client's registry."""
        everybody = {**self.others, self._replica: list(self._own.collect())}
        merged: dict[str, Metric] = {}
        for replica, families in everybody.items():
            for family in families:
                one = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                one.samples += [s._replace(labels={**s.labels, LABEL: replica}) for s in family.samples]
        return merged.values()


async def keep_telling(replica: str, registry: CollectorRegistry, figures: Any) -> None:
    """Tell a handle to :class:`MetricsAggregator` again and again; nobody there to hear it is no reason to end."""
    while True:
        await _patiently(figures.tell.remote(replica, list(registry.collect())))
        await asyncio.sleep(EVERY_S)


async def keep_hearing(collected: Collected, figures: Any) -> None:
    """Learn again and again what a handle to :class:`MetricsAggregator` knows."""
    while True:
        collected.others = await _patiently(figures.all.remote()) or collected.others
        await asyncio.sleep(EVERY_S)


async def _patiently(response: Any) -> Any:
    try:
        return await asyncio.wait_for(response, FORGET_S)
    except Exception:  # of Ray, of any kind: the other end is being replaced
        return None
