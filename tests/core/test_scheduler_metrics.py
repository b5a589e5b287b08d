from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from prunepool.core.model_info import ModelInfo
from prunepool.core.scheduler_metrics import SchedulerMetrics
from prunepool.core.types import Limits
from prunepool.metrics import Metrics
from prunepool.testing.fake_models import fake_model


async def mixed(rig: Any) -> Any:
    """Run one batch of a dense image and one at ratio 0.5 (98 of 196 patches, 0.75 GMACs), taking 7 s."""
    scheduler = await rig.start()
    rig.gate.close()
    requests = [rig.request(1, ratio=0.0), rig.request(2, ratio=0.5)]
    tasks = [asyncio.create_task(scheduler.submit(one)) for one in requests]
    await rig.gate.arrived(1)
    await rig.clock.advance(7.0)
    rig.gate.open()
    await asyncio.gather(*tasks)
    return rig.sample


@pytest.mark.parametrize(
    ("series", "labels", "value"),
    [
        ("batch_size_count", {}, 1),
        ("batch_size_sum", {}, 2),
        ("batch_tokens_sum", {}, 197 + 99),
        ("images_total", {"reduction": "0"}, 1),
        ("images_total", {"reduction": "0.5-0.6"}, 1),
        ("device_images_total", {"launch": "kernels"}, 2),
        ("device_images_total", {"launch": "recorded"}, 0),
        ("inference_seconds_total", {"reduction": "0"}, 4.0),
        ("inference_seconds_total", {"reduction": "0.5-0.6"}, 3.0),
        ("applied_reduction_ratio_sum", {}, 0.5),
        ("applied_reduction_ratio_count", {}, 2),
        ("tokens_total", {"fate": "kept"}, 197 + 99),
        ("tokens_total", {"fate": "pruned"}, 49),
        ("tokens_total", {"fate": "pooled"}, 49),
        ("gmacs_total", {"kind": "spent"}, 1.75),
        ("gmacs_total", {"kind": "saved"}, 0.25),
    ],
)
async def test_a_batch_is_counted(rig: Any, series: str, labels: dict[str, str], value: float) -> None:
    sample = await mixed(rig)
    assert sample(series, **labels) == pytest.approx(value)


def test_what_computes_a_model_is_one_series_at_a_time() -> None:
    """As when a model that is not compiled changes from PyTorch to OpenVINO."""
    registry = CollectorRegistry()
    costs: Any = SimpleNamespace(gmacs=lambda ratio: 1.0)
    series = SchedulerMetrics(Metrics(registry), "m", costs)
    first = replace(fake_model("m"), device="cpu", dtype="float32", backend="pytorch")
    second = replace(first, dtype="int8", backend="openvino")

    def runs(info: ModelInfo) -> float | None:
        labels = {"model": "m", "device": "cpu", "dtype": info.dtype, "backend": info.backend}
        return registry.get_sample_value("prunepool_model_runs", labels)

    series.set_running(first)
    assert (runs(first), runs(second)) == (1, None)
    series.set_running(second)
    series.set_running(second)
    assert (runs(first), runs(second)) == (0, 1)


async def test_the_first_batch_finds_the_series_of_what_computes_it(rig: Any) -> None:
    sample = await mixed(rig)
    info = fake_model("m")
    assert sample("model_runs", device=info.device, dtype=info.dtype, backend=info.backend) == 1


async def test_a_batch_that_did_not_fit_is_not_counted(rig: Any) -> None:
    scheduler = await rig.start({"out_of_memory_above": 1})
    await asyncio.gather(*await rig.submit(scheduler, 1, 2))
    assert rig.sample("batch_size_count") == 2


async def test_the_queue_is_exported_while_it_waits(rig: Any) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)
    await rig.submit(scheduler, 2, 3)
    assert rig.sample("queue_requests") == 2


async def test_a_client_that_left_is_not_counted_as_waiting(rig: Any) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)
    gone, _ = await rig.submit(scheduler, 2, 3)
    gone.cancel()
    await rig.clock.advance(0.0)
    assert rig.sample("queue_requests") == 1


async def test_the_drain_is_exported_as_predicted(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=1))
    rig.gate.close()
    tasks = await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)
    await rig.clock.advance(1.0)  # the warm-up image took no time, so that this is the first measurement
    rig.gate.let()
    await asyncio.gather(*tasks)
    await rig.submit(scheduler, 2, 3, 4)
    assert rig.sample("queue_drain_seconds") == pytest.approx(3.0)


async def test_what_auto_would_take_is_exported(rig: Any) -> None:
    scheduler = await rig.start()
    await asyncio.gather(*await rig.submit(scheduler, 1))
    assert rig.sample("auto_reduction_ratio") == 0.5


async def test_what_auto_may_do_is_exported_beside_what_it_does(rig: Any) -> None:
    await rig.start(limits=Limits(target_s=0.2), auto_maximum=0.5)
    assert rig.sample("auto_reduction_ratio_limit") == 0.5
    assert rig.sample("target_latency_seconds") == 0.2
