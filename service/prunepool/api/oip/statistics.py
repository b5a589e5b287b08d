"""Statistics of each view, counted as in Triton's statistics extension."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prunepool.api.oip.views import VERSION
from prunepool.serving.types import Inference

#: Number of batches remembered as counted. The images of a batch return together, so few suffice.
_REMEMBERED_BATCHES = 64


@dataclass(slots=True)
class Duration:
    """A number of measurements and their sum."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Add a measurement."""
        self.count += 1
        self.ns += ns


_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class _Counts:
    inferences: int = 0
    last_ms: int = 0
    executions: dict[int, Duration] = field(default_factory=dict)
    counted: deque[int] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_BATCHES))
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    stages: dict[str, Duration] = field(default_factory=lambda: {stage: Duration() for stage in _STAGES})


class Statistics:
    """The statistics of all views. Call it from the event loop only.

    Args:
        epoch_ms: clock for the time of the last inference: milliseconds since the epoch.
        clock_ns: monotonic clock, in nanoseconds.
    """

    def __init__(
        self,
        epoch_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._epoch_ms = epoch_ms
        self.clock_ns = clock_ns
        self._counts: dict[str, _Counts] = {}

    def inferred(self, view: str, result: Inference) -> None:
        """Count an image, and its batch if this is the first image of it."""
        counts = self._of(view)
        counts.inferences += 1
        counts.last_ms = self._epoch_ms()
        if result.batch not in counts.counted:
            counts.counted.append(result.batch)
            ran = counts.executions.setdefault(result.batch_size, Duration())
            ran.add(_ns(result.timing_ms.inference))

    def succeeded(
        self, view: str, results: Sequence[Inference], *, decode_ns: int, encode_ns: int, total_ns: int
    ) -> None:
        """Count a request that succeeded.

        Args:
            view: name of the view.
            results: one for each image; the slowest stands for the request in the times of the stages.
            decode_ns: time to parse the body.
            encode_ns: time to encode the response.
            total_ns: time from the complete body to the complete response.
        """
        slowest = max(results, key=lambda result: result.timing_ms.total).timing_ms
        counts = self._of(view)
        counts.success.add(total_ns)
        counts.stages["queue"].add(_ns(slowest.queue))
        counts.stages["compute_input"].add(decode_ns + _ns(slowest.decode))
        counts.stages["compute_infer"].add(_ns(slowest.inference))
        counts.stages["compute_output"].add(encode_ns)

    def failed(self, view: str, ns: int) -> None:
        """Count a request that failed after a number of nanoseconds."""
        self._of(view).fail.add(ns)

    def json(self, view: str) -> dict[str, object]:
        """Return the statistics of a view as the protocol's JSON."""
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
                # This server has no response cache.
                "cache_hit": Duration(),
                "cache_miss": Duration(),
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    # Decoding and encoding happen per request, not per batch.
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
