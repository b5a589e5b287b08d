"""GPU metrics, from a fake of NVIDIA's library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from prunepool.gpu import GpuCollector


class NotSupportedError(Exception):
    """As NVML raises for what a device does not offer."""


class TwoGpus:
    """A GPU, and a MIG slice without a power reading."""

    NVMLError = NotSupportedError

    def nvmlInit(self) -> None: ...  # noqa: N802 - the library's names

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=(75, 10)[handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=2 << 30, total=80 << 30)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle == 1:
            raise NotSupportedError
        return 350_500


@pytest.mark.parametrize(
    ("series", "labels", "value"),
    [
        ("utilization_ratio", {"gpu": "0"}, 0.75),
        ("utilization_ratio", {"gpu": "1"}, 0.1),
        ("memory_bytes", {"gpu": "0", "kind": "used"}, 2 << 30),
        ("memory_bytes", {"gpu": "0", "kind": "total"}, 80 << 30),
        ("power_watts", {"gpu": "0"}, 350.5),
        ("power_watts", {"gpu": "1"}, None),
    ],
)
def test_each_gpu_is_read_in_base_units(series: str, labels: dict[str, str], value: float | None) -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(TwoGpus()))
    assert registry.get_sample_value(f"prunepool_gpu_{series}", labels) == value
