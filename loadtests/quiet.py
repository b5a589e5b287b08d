"""The share of the CPU that other programs use during a measurement."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Use:
    """CPU time since boot.

    Attributes:
        own: seconds that our processes took, by process.
        busy: seconds that all took.
        total: seconds that there were, over all cores.
    """

    own: dict[int, float]
    busy: float
    total: float

    def others_since(self, before: Use) -> float:
        """Return the share of the cores that others used since an earlier reading, 0 to 1."""
        own = sum(seconds - before.own.get(number, 0.0) for number, seconds in self.own.items())
        passed = self.total - before.total
        return max(0.0, self.busy - before.busy - own) / passed if passed > 0 else 0.0


def use(roots: Iterable[int]) -> Use:
    """Read it.

    Args:
        roots: numbers of processes; they and all that they started are our own.
    """
    own: dict[int, float] = {}
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(root)
            for process in (first, *first.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    own[process.pid] = times.user + times.system
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux includes the time of guests in user time.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return Use(own, total - idle, total)


class Watch:
    """Samples the CPU time in a thread while the context is open.

    Args:
        every_s: seconds between readings.
    """

    def __init__(self, every_s: float = 0.5) -> None:
        self._every_s = every_s
        self._readings: list[tuple[float, Use]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def others(self, start: float, end: float) -> float:
        """Return the share of the cores that others used between two times of `time.time`."""
        inside = [used for at, used in self._readings if start - self._every_s <= at <= end + self._every_s]
        return inside[-1].others_since(inside[0]) if len(inside) > 1 else 0.0

    def _read(self) -> None:
        while not self._over.is_set():
            self._readings.append((time.time(), use([os.getpid()])))
            self._over.wait(self._every_s)
