"""A new transport is one file: the service runs with a toy one, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
from pictures import pictures
from toy_transport import ThreadCoreClient

from prunepool.core.core import Core, CoreConfig
from prunepool.core.served_model import ServedModel
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.service import InferenceService, ServiceConfig
from prunepool.settings import Settings
from prunepool.testing import FakeBackend, FakeCosts, fake_model
from prunepool.transport.inproc import InprocCoreClient


def first_byte(data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
    return np.full((preprocess.size, preprocess.size, 3), data[-3], np.uint8)


def test_the_service_runs_over_it(
    serving: Callable[[Settings, Any], AbstractContextManager[str]], metrics: Metrics
) -> None:
    info = fake_model("m")
    model = ServedModel(
        "m", lambda: info, Preprocess(4, 1.0), FakeCosts(), lambda ratio: ratio, FakeBackend, "generation"
    )
    loop = asyncio.new_event_loop()

    async def make() -> Core:
        return Core([model], config=CoreConfig(), metrics=metrics)

    client = ThreadCoreClient(InprocCoreClient(loop.run_until_complete(make())), loop)
    service = InferenceService(client, ServiceConfig(decode_threads=1), metrics, decode=first_byte)
    photos = pictures(8, 16)
    with serving(Settings(), service) as url, httpx.Client(base_url=url) as http:
        assert http.get("/readyz").status_code == 200
        for number, photo in enumerate(photos):
            answer = http.post(f"/classify?reduction_ratio={number / 10}", content=photo).json()
            assert answer["predictions"][0]["index"] == photo[-3] % 10
            assert answer["reduction"]["applied"] == number / 10
        several = http.post("/classify", files=[("file", photo) for photo in photos]).json()["results"]
        assert [one["predictions"][0]["index"] for one in several] == [photo[-3] % 10 for photo in photos]
        refused = http.post("/classify?model=nobody", content=photos[0])
        assert refused.json()["code"] == "model_not_found"
    ok = metrics.registry.get_sample_value("prunepool_requests_total", {"model": "m", "outcome": "ok"})
    assert ok == 2 * len(photos)
