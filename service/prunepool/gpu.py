# ruff: noqa: N802 - the names are NVIDIA's
"""GPU metrics from NVIDIA's management library (NVML), read at each scrape.

They need the extra `gpu` (nvidia-ml-py), and cover every GPU that the process can see. A reading that a device
does not offer, such as power on a MIG slice, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = structlog.stdlib.get_logger("prunepool.gpu")


class Nvml(Protocol):
    """The part of the module `pynvml` that is used; handles are opaque."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:
        """Initialise, which needs a driver."""

    def nvmlDeviceGetCount(self) -> int:
        """Return the number of GPUs."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """Return the handle of a GPU."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        """Return `.gpu`: percent of the last sample period in which a kernel ran."""

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        """Return `.used` and `.total`, in bytes."""

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        """Return the power in milliwatts."""


class GpuCollector(Collector):
    """The series `prunepool_gpu_…`, labelled by the index of the GPU.

    Args:
        nvml: the module `pynvml`, initialised.
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._gpus = {
            str(index): nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read every GPU."""
        nvml = self._nvml
        busy = GaugeMetricFamily(
            "prunepool_gpu_utilization_ratio",
            "Share of the time in which the GPU ran anything.",
            labels=["gpu"],
        )
        memory = GaugeMetricFamily(
            "prunepool_gpu_memory_bytes",
            "Memory of the GPU: used, by whomever, and total.",
            labels=["gpu", "kind"],
        )
        power = GaugeMetricFamily("prunepool_gpu_power_watts", "Power that the GPU draws.", labels=["gpu"])
        for gpu, handle in self._gpus.items():
            if (rates := self._read(nvml.nvmlDeviceGetUtilizationRates, handle)) is not None:
                busy.add_metric([gpu], rates.gpu / 100)
            if (bytes_ := self._read(nvml.nvmlDeviceGetMemoryInfo, handle)) is not None:
                memory.add_metric([gpu, "used"], bytes_.used)
                memory.add_metric([gpu, "total"], bytes_.total)
            if (milliwatts := self._read(nvml.nvmlDeviceGetPowerUsage, handle)) is not None:
                power.add_metric([gpu], milliwatts / 1000)
        yield from (busy, memory, power)

    def _read(self, reading: Callable[[Any], Any], handle: Any) -> Any:
        try:
            return reading(handle)
        except self._nvml.NVMLError:
            return None


def gpu_collector() -> GpuCollector | None:
    """Make the collector for this machine; None without nvidia-ml-py or without a driver."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        return GpuCollector(pynvml)
    except pynvml.NVMLError as error:
        log.debug("no GPU metrics", cause=str(error))
        return None
