# ruff: noqa: N802 - the names are NVIDIA's
"""What NVIDIA's management library says of the GPUs, read whenever somebody scrapes.

It needs the extra `gpu` (nvidia-ml-py), and tells of every GPU that the process can see: in a container, those that
it was given. A reading that a device does not offer (power, on a slice of a card) is left out, the others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = structlog.stdlib.get_logger("prunepool.gpu")


class Nvml(Protocol):
    """What is used of the module `pynvml`; handles are opaque."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None:
        """Find the driver."""

    def nvmlDeviceGetCount(self) -> int:
        """How many GPUs there are."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """One of them."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        """`.gpu`, percent of the last sample period in which a kernel ran."""

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        """`.used` and `.total`, bytes."""

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        """Milliwatts."""


class GpuCollector(Collector):
    """`prunepool_gpu_…`, by the GPU's index.

    Args:
        nvml: the module, initialised.
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._gpus = {
            str(index): nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One reading of every GPU."""
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
    """The collector of this machine's GPUs; None without nvidia-ml-py or without a driver."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        return GpuCollector(pynvml)
    except pynvml.NVMLError as error:
        log.debug("no figures of a GPU", cause=str(error))
        return None
