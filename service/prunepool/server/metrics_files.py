"""One `/metrics` for the whole server, whichever front end is asked.

Every process keeps its series in a file of its own, in prometheus_client's multi-process format, under a name
that its successor takes over: so counters go on where a killed process left them, and are never counted twice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Metric, multiprocess, values

from prunepool.metrics import Metrics
from prunepool.server.reserved_file import ReservedFile

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_log = structlog.stdlib.get_logger("prunepool.processes")


def shared_metrics(folder: Path, process: str) -> Metrics:
    """This process's series, in files of its name; to be called once, before any series is made.

    Args:
        folder: the files of all processes.
        process: a name that no other running process has; without underscores.
    """
    os.environ[_VARIABLE] = str(folder)
    values.MmapedDict = ReservedFile  # type: ignore[attr-defined]
    values.ValueClass = _mapped_or_not(values.MultiProcessValue(lambda: process))  # type: ignore[no-untyped-call]
    return Metrics(CollectorRegistry(), CollectorRegistry())


def _mapped_or_not(mapped: Callable[..., Any]) -> Callable[..., Any]:
    """Makes values in the files of this process; one that finds no room there counts unseen, and stops nothing."""
    complained = False

    def value(*args: Any, **kwargs: Any) -> Any:
        nonlocal complained
        try:
            return mapped(*args, **kwargs)
        except OSError as error:
            if not complained:
                complained = True
                _log.warning("series find no room on the disk; /metrics lacks some", why=error.strerror)
            return values.MutexValue(*args, **kwargs)  # type: ignore[no-untyped-call]

    return value


def expose(metrics: Metrics, folder: Path, served: Callable[[], Collection[str]]) -> None:
    """Have scrapes of this process show the series of all.

    Args:
        metrics: of this process.
        folder: the files of all processes.
        served: names of the models that are served; the gauges of others are not shown.
    """
    metrics.exposed.register(_Merged(metrics, folder, served))


async def publish(metrics: Metrics, every_s: float) -> None:
    """Write down, again and again, what gauges would say if they were asked: a scrape cannot ask this process."""
    while True:
        metrics.refresh()
        await asyncio.sleep(every_s)


def forget_gauges(folder: Path, process: str) -> None:
    """A process has died: what it was doing is no more."""
    multiprocess.mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]


class _Merged:
    """All series of all processes."""

    def __init__(self, metrics: Metrics, folder: Path, served: Callable[[], Collection[str]]) -> None:
        self._metrics = metrics
        self._files = multiprocess.MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
        self._served = served

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client's registry."""
        self._metrics.refresh()
        served = self._served()
        for family in self._files.collect():  # type: ignore[no-untyped-call]
            if family.type == "gauge":
                family.samples = [
                    sample for sample in family.samples if sample.labels.get("model", None) in (None, *served)
                ]
            yield family
