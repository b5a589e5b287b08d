"""Timing on a GPU and without one: candidates take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from prunepool.backends.cuda_capture import PassOutputs
from prunepool.backends.cuda_device import CudaDevice


def captured(device: CudaDevice | None, function: Callable[[], PassOutputs]) -> Callable[[], object]:
    """A function as a CUDA graph of the device; itself where there is no device."""
    return function if device is None else device.capture(function)[1]


def seconds_of(
    runs: Mapping[str, Callable[[], object]], *, rounds: int, least_s: float, device: CudaDevice | None
) -> dict[str, tuple[float, float, float]]:
    """Median, least and most seconds of one call, the candidates taking turns; by events on a GPU.

    Args:
        runs: by name; each at least once before it counts.
        rounds: turns of each that count.
        least_s: about how long a turn is.
        device: on whose stream they run; None: they return when they are done.
    """
    calls = {name: max(1, round(least_s / _turn(run, 1, device))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            seconds = _turn(run, calls[name], device)
            if turn:
                times[name].append(seconds)
    return {name: (statistics.median(each), min(each), max(each)) for name, each in times.items()}


def _turn(run: Callable[[], object], calls: int, device: CudaDevice | None) -> float:
    """Seconds a call."""
    if device is None:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    cuda: Any = torch.cuda
    with device.active():
        run()
        first, last = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        first.record()
        for _ in range(calls):
            run()
        last.record()
        last.synchronize()
    return float(first.elapsed_time(last)) / 1000 / calls
