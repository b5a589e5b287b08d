"""The routes for probes, Prometheus and the list of models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily

from prunepool.api import schemas
from prunepool.core.model_info import PlanInfo
from prunepool.metrics import Metrics
from prunepool.testing import FakeService, fake_model


@pytest.mark.parametrize("ready", [True, False])
async def test_alive_whatever_the_state_of_the_engine(
    http: httpx.AsyncClient, service: FakeService, ready: bool
) -> None:
    service.ready = ready
    response = await http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"alive": True})


async def test_a_process_whose_engine_is_lost_is_not_alive(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.state.context.drain.broken = True
    response = await http.get("/healthz")
    assert (response.status_code, response.json()) == (503, {"alive": False})


async def test_ready(http: httpx.AsyncClient) -> None:
    response = await http.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True, "missing": []})


async def test_an_unready_server_says_what_is_missing(http: httpx.AsyncClient, service: FakeService) -> None:
    service.ready = False
    response = await http.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "missing": ["engine"]})


async def test_a_drain_ends_readiness_at_once(http: httpx.AsyncClient, app: FastAPI) -> None:
    app.state.context.drain.begin()
    response = await http.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False, "missing": ["draining"]})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_may_use_head(http: httpx.AsyncClient, path: str) -> None:
    response = await http.head(path)
    assert (response.status_code, response.content) == (200, b"")


async def test_metrics_are_those_of_the_injected_registry(http: httpx.AsyncClient, metrics: Metrics) -> None:
    metrics.queue_requests.labels("fake").set(3)
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'prunepool_queue_requests{model="fake"} 3.0' in response.text


class Counting:
    """Series that count how often they are collected."""

    times = 0

    def collect(self) -> Iterable[Metric]:
        self.times += 1
        return [CounterMetricFamily("collected", "Times.", value=self.times)]


async def test_scrapes_at_the_same_time_are_written_once(http: httpx.AsyncClient, metrics: Metrics) -> None:
    counting = Counting()
    metrics.exposed.register(counting)
    before = counting.times
    answers = await asyncio.gather(*(http.get("/metrics") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert counting.times - before < 5
    metrics.queue_requests.labels("fake").set(17)
    assert 'prunepool_queue_requests{model="fake"} 17.0' in (await http.get("/metrics")).text


async def test_metrics_as_open_metrics_on_request(http: httpx.AsyncClient) -> None:
    response = await http.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


async def test_models_are_listed_with_the_default(make_app: Callable[..., FastAPI], connect: Any) -> None:
    http = connect(make_app(FakeService([fake_model("a"), fake_model("b")])))
    found = schemas.Models.model_validate((await http.get("/models")).json())
    assert found.default == "a"
    assert [model.name for model in found.models] == ["a", "b"]


async def test_a_model_in_full(make_app: Callable[..., FastAPI], connect: Any) -> None:
    plan = PlanInfo(0.755, (3, 6, 9), (50, 50, 48), (7e-5,) * 3, (197, 147, 97, 49), 0.8, 0.363)
    info = replace(fake_model("a"), plans=(plan,), profile=[{"ratio": 0.755, "gmacs": 0.8, "top1": 0.9}])
    response = await connect(make_app(FakeService([info]))).get("/models/a")
    found = schemas.Model.model_validate(response.json())
    assert found.labels == list(info.labels)
    assert found.plans[0].removed == [50, 50, 48]
    assert found.profile == [schemas.ProfilePoint(ratio=0.755, gmacs=0.8, top1=0.9)]


async def test_an_unknown_model_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.get("/models/nope")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")
