"""An engine replica by itself; needs Ray (tests/e2e/test_ray.py runs this with the Python of .venv-ray)."""

from __future__ import annotations

import asyncio
import os
import shutil
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, while it is imported
    pytest.importorskip("ray.serve")

from prunepool.core.core import Core, CoreConfig
from prunepool.core.resilience import Resilience
from prunepool.core.served_model import ServedModel
from prunepool.core.types import RatioSpec, Request
from prunepool.errors import InvalidParameter, ModelNotFound
from prunepool.imaging import Preprocess
from prunepool.metrics import Metrics
from prunepool.ray_app import engine
from prunepool.ray_app.autoscaling import DRAIN_S, SPENT
from prunepool.settings import Settings
from prunepool.testing import FakeBackend, FakeCosts, fake_model
from prunepool.transport.messages import Completed, Failed, Status, decode_for_frontend, encode, submit_of
from prunepool.transport.ray import relative

Replicas = Callable[..., Any]


class Call:
    async def remote(self, replica: str, families: list[Any]) -> None:
        """Of a handle: nobody listens."""


class Replica(engine.EngineReplica):
    """Ray awaits `__del__` by itself, and calls it once."""

    def __del__(self) -> None:
        pass


@pytest.fixture
async def replica(store: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replicas]:
    """Makes replicas as Ray does, up to `reconfigure`, and ends them as Ray does."""
    made: list[Replica] = []
    monkeypatch.setattr(engine, "replica_logging", lambda *_: "a")

    def make(**changed: Any) -> Replica:
        settings = Settings(model_store=store, dtype="float32", compute_threads=1, **changed)
        made.append(Replica(settings, SimpleNamespace(report=Call())))
        return made[-1]

    yield make
    for one in made:
        await engine.EngineReplica.__del__(one)


@pytest.fixture
def store(root: Path, tmp_path: Path) -> Path:
    """Two models; the default of the settings is none of them."""
    for name in ("one", "two"):
        shutil.copytree(root / "model_store" / "deit_tiny_imagenette", tmp_path / name)
        manifest = tmp_path / name / "model.json"
        manifest.write_text(
            manifest.read_text().replace('"name": "deit_tiny_imagenette"', f'"name": "{name}"')
        )
    return tmp_path


async def status(replica: Any) -> Status:
    name, reported = await replica.status()
    assert name == "a"
    found = decode_for_frontend(reported)
    assert isinstance(found, Status)
    return found


async def ask(replica: Any, model: str, pixels: np.ndarray, generation: str) -> Completed | Failed:
    now = asyncio.get_running_loop().time()
    request = Request(pixels, RatioSpec(0.0, 0.5), now, None)
    message = relative(submit_of(7, model, generation, request, None), now)
    name, replied = await replica.submit(encode(message), pixels.tobytes())
    assert name == "a"
    found = decode_for_frontend(replied)
    assert isinstance(found, Completed | Failed)
    return found


async def test_it_starts_with_the_models_of_user_config_and_no_other(replica: Replicas) -> None:
    one = replica()
    await one.reconfigure({"model": "two"})
    await one.check_health()
    reported = await status(one)
    assert (reported.default, list(reported.loads)) == ("two", ["two"])
    (offer,) = reported.offers or ()
    done = await ask(one, "two", np.zeros((224, 224, 3), np.uint8), offer.generation)
    assert isinstance(done, Completed)
    assert len(done.result.output.logits) == 10


async def test_without_user_config_it_is_healthy_with_the_models_of_its_settings(replica: Replicas) -> None:
    one = replica(model="one")
    await one.check_health()
    assert list((await status(one)).loads) == ["one"]


async def test_another_user_config_replaces_the_model_in_the_running_replica(replica: Replicas) -> None:
    one = replica()
    await one.reconfigure({"model": "one"})
    await one.reconfigure({"model": "two"})
    reported = await status(one)
    assert (reported.default, list(reported.loads)) == ("two", ["two"])


async def test_a_model_that_is_not_there_is_an_error_and_what_was_served_stays(replica: Replicas) -> None:
    one = replica()
    await one.reconfigure({"model": "one"})
    with pytest.raises(ModelNotFound, match="nobody"):
        await one.reconfigure({"model": "one", "models": ["nobody"]})
    assert (await status(one)).default == "one"


async def test_a_setting_in_user_config_is_refused(replica: Replicas) -> None:
    one = replica()
    with pytest.raises(InvalidParameter) as caught:
        await one.reconfigure({"model": "one", "dtype": "bfloat16"})
    assert "dtype" in caught.value.detail


async def test_a_request_for_a_model_that_is_not_there_is_answered_with_the_reason(replica: Replicas) -> None:
    one = replica(model="one")
    await one.check_health()
    failed = await ask(one, "nobody", np.zeros((224, 224, 3), np.uint8), "")
    assert isinstance(failed, Failed)
    assert failed.error.code == "model_not_found"


async def test_autoscaling_learns_nothing_before_there_is_a_model(replica: Replicas) -> None:
    one = replica(model="one")
    assert await one.record_autoscaling_stats() == {}
    await one.check_health()
    assert await one.record_autoscaling_stats() == {DRAIN_S: 0.0, SPENT: 0.0}


async def test_a_replica_whose_restarts_keep_failing_ends_so_that_ray_replaces_it(
    replica: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = [FakeBackend(fail=lambda batch: RuntimeError("boom"))]

    def backend() -> FakeBackend:
        if not backends:
            raise RuntimeError("CUDA error: illegal memory access")
        return backends.pop()

    def create_core(settings: Settings, metrics: Metrics) -> Core:
        info = fake_model("one")
        crop = Preprocess(size=4, crop_pct=1.0)
        model = ServedModel("one", lambda: info, crop, FakeCosts(), lambda ratio: ratio, backend)
        return Core([model], config=CoreConfig(resilience=Resilience(first_delay_s=0.0)), metrics=metrics)

    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(engine.factory, "create_core", create_core)
    monkeypatch.setattr(os, "_exit", ended.set_result)
    one = replica(model="one")
    await one.check_health()
    asking = asyncio.create_task(ask(one, "one", np.zeros((4, 4, 3), np.uint8), ""))
    assert await asyncio.wait_for(ended, 20) == 1
    asking.cancel()
