"""One `/metrics` for the whole application: the series of all replicas, told apart by the label `replica`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Metric

#: Seconds between two reports of a replica, and after which the last one of a silent replica is dropped.
REPORT_EVERY_S, EXPIRE_S = 1.0, 10.0
LABEL = "replica"
T = TypeVar("T")


class MetricsAggregator:
    """Keeps the last report of each replica; a deployment of its own.

    While it is down, `/metrics` shows the last reports that each ingress fetched.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, tuple[float, list[Metric]]] = {}

    async def report(self, replica: str, families: list[Metric]) -> None:
        """Replace the last report of a replica."""
        self._reports[replica] = self._clock(), families

    async def reports(self) -> dict[str, list[Metric]]:
        """The last report of each replica, without those that have expired."""
        now = self._clock()
        self._reports = {name: last for name, last in self._reports.items() if now - last[0] < EXPIRE_S}
        return {name: families for name, (_, families) in self._reports.items()}


class MergedCollector:
    """For an ingress's registry: its own series as of now, and those of other replicas as last reported.

    Args:
        replica: the name of this replica.
        own: its series.

    Attributes:
        others: the last reports, by replica; one of this replica itself is left out.
    """

    def __init__(self, replica: str, own: CollectorRegistry) -> None:
        self._replica = replica
        self._own = own
        self.others: Mapping[str, list[Metric]] = {}

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client's registry: each family once, with the samples of all replicas."""
        reports = {**self.others, self._replica: list(self._own.collect())}
        merged: dict[str, Metric] = {}
        for replica, families in reports.items():
            for family in families:
                one = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                one.samples += [s._replace(labels={**s.labels, LABEL: replica}) for s in family.samples]
        return merged.values()


async def report_metrics(
    replica: str, registry: CollectorRegistry, aggregator: Any, refresh: Callable[[], None] = lambda: None
) -> None:
    """Report the series of a replica, again and again.

    Args:
        replica: its name.
        registry: its series.
        aggregator: a handle to :class:`MetricsAggregator`; calls that fail are tried again with the next report.
        refresh: called before each report.
    """
    while True:
        refresh()
        await _or_none(aggregator.report.remote(replica, list(registry.collect())))
        await asyncio.sleep(REPORT_EVERY_S)


async def fetch_reports(collector: MergedCollector, aggregator: Any) -> None:
    """Fetch the last reports for a collector, again and again.

    Args:
        collector: keeps those it has while a call fails.
        aggregator: a handle to :class:`MetricsAggregator`.
    """
    while True:
        collector.others = await _or_none(aggregator.reports.remote()) or collector.others
        await asyncio.sleep(REPORT_EVERY_S)


async def _or_none(response: Awaitable[T]) -> T | None:
    """What a call returns, or None if it fails."""
    try:
        return await asyncio.wait_for(response, EXPIRE_S)
    except Exception:  # of Ray, of any kind: the aggregator is being replaced
        return None
