"""How much of the processor other programs take while something is measured."""

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
    """Processor time so far.

    Attributes:
        own: seconds that our processes took, by process.
        busy: seconds that all took.
        total: seconds that there were, over all cores.
    """

    own: dict[int, float]
    busy: float
    total: float

    def others_since(self, before: Use) -> float:
        """The share of the cores that others took since an earlier reading, 0 to 1."""
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
    # Linux counts guests' time as the user's too.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return Use(own, total - idle, total)


class Watch:
    """Reads the use of the processor again and again, in a thread, while it is entered.

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
        """The share of the cores that others took between two times, as `time.time` gives them."""
        inside = [used for at, used in self._readings if start - self._every_s <= at <= end + self._every_s]
        return inside[-1].others_since(inside[0]) if len(inside) > 1 else 0.0

    def _read(self) -> None:
        while not self._over.is_set():
            self._readings.append((time.time(), use([os.getpid()])))
            self._over.wait(self._every_s)
