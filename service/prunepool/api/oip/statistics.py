"""What became of the requests of each view, counted as Triton's statistics extension counts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prunepool.api.oip.views import VERSION
from prunepool.serving.types import Inference

#: Batches that are remembered as counted. Their images come back together, so few suffice.
_REMEMBERED = 64


@dataclass(slots=True)
class Duration:
    """How often something was timed, and all those times together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """One more."""
        self.count += 1
        self.ns += ns


_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class _Counts:
    inferences: int = 0
    last_ms: int = 0
    executions: dict[int, Duration] = field(default_factory=dict)
    counted: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    stages: dict[str, Duration] = field(default_factory=lambda: {stage: Duration() for stage in _STAGES})


class Statistics:
    """The counts of all views; for one event loop.

    Args:
        epoch_ms: milliseconds since the epoch, for the time of the last inference.
        clock_ns: nanoseconds of a monotonic clock.
    """

    def __init__(
        self,
        epoch_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._epoch_ms = epoch_ms
        self.clock_ns = clock_ns
        self._counts: dict[str, _Counts] = {}

    def inferred(self, view: str, answer: Inference) -> None:
        """An image was answered; a batch counts when the first of its images is."""
        counts = self._of(view)
        counts.inferences += 1
        counts.last_ms = self._epoch_ms()
        if answer.batch not in counts.counted:
            counts.counted.append(answer.batch)
            ran = counts.executions.setdefault(answer.batch_size, Duration())
            ran.add(_ns(answer.timing_ms.inference))

    def succeeded(
        self, view: str, answers: Sequence[Inference], *, unpacked_ns: int, packed_ns: int, total_ns: int
    ) -> None:
        """A request was answered.

        Args:
            view: the name of what was asked.
            answers: one for each image; the one that took longest stands for the request's time in stages.
            unpacked_ns: unpacking its body took so long.
            packed_ns: packing its answer took so long.
            total_ns: from its complete arrival to its complete answer.
        """
        slowest = max(answers, key=lambda answer: answer.timing_ms.total).timing_ms
        counts = self._of(view)
        counts.success.add(total_ns)
        counts.stages["queue"].add(_ns(slowest.queue))
        counts.stages["compute_input"].add(unpacked_ns + _ns(slowest.decode))
        counts.stages["compute_infer"].add(_ns(slowest.inference))
        counts.stages["compute_output"].add(packed_ns)

    def failed(self, view: str, ns: int) -> None:
        """A request got an error after this time."""
        self._of(view).fail.add(ns)

    def json(self, view: str) -> dict[str, object]:
        """What is known of a view."""
        counts = self._counts.get(view, _Counts())
        return {
            "name": view,
            "version": VERSION,
            "last_inference": counts.last_ms,
            "inference_count": counts.inferences,
            "execution_count": sum(ran.count for ran in counts.executions.values()),
            "inference_stats": {
                "success": counts.success,
                "fail": counts.fail,
                **counts.stages,
                # Nothing is cached, so nothing is hit or missed.
                "cache_hit": Duration(),
                "cache_miss": Duration(),
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    # Images are unpacked and answers packed one by one, not by batch.
                    "compute_input": Duration(),
                    "compute_infer": counts.executions[size],
                    "compute_output": Duration(),
                }
                for size in sorted(counts.executions)
            ],
        }

    def _of(self, view: str) -> _Counts:
        return self._counts.setdefault(view, _Counts())


def _ns(ms: float) -> int:
    return round(ms * 1e6)
