"""What a CUDA device does while another model captures a graph, over a torch.cuda that computes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from prunepool.backends import cuda_device
from prunepool.backends.cuda_device import CudaDevice

TIMEOUT_S = 20.0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What was asked of the whole device, and whether a capture could have been under way in another thread."""
    asked: list[tuple[str, bool]] = []

    def noted(name: str, result: object = None) -> Callable[..., object]:
        def call(*_: object) -> object:
            asked.append((name, not cuda_device._CAPTURE.locked()))
            return result

        return call

    for name, result in (("synchronize", None), ("empty_cache", None), ("mem_get_info", (1, 4))):
        monkeypatch.setattr(torch.cuda, name, noted(name, result))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: threading.Lock())
    return asked


def test_nothing_that_concerns_the_whole_device_is_done_beside_a_capture(
    calls: list[tuple[str, bool]],
) -> None:
    device = CudaDevice(torch.device("cuda:0"))
    assert device.used() == 3
    device.close()
    assert {name for name, _ in calls} == {"synchronize", "empty_cache", "mem_get_info"}
    assert not any(beside for _, beside in calls)


def test_closing_a_model_waits_for_the_capture_of_another(calls: list[tuple[str, bool]]) -> None:
    device = CudaDevice(torch.device("cuda:0"))
    calls.clear()
    with cuda_device._CAPTURE:  # as another model's capture holds it
        closing = threading.Thread(target=device.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        assert calls == []
    closing.join(TIMEOUT_S)
    assert [name for name, _ in calls] == ["empty_cache"]
