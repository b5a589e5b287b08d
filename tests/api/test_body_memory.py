"""The memory of all bodies together is bounded; refused requests get Retry-After."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.errors import Overloaded
from prunepool.metrics import Metrics
from prunepool.testing import FakeService

TIMEOUT_S = 20.0
SIZE = 1000


@pytest.fixture
def budget(clock: Any) -> BodyMemoryBudget:
    return BodyMemoryBudget(SIZE, clock)


def test_a_body_that_does_not_fit_beside_others_is_refused(budget: BodyMemoryBudget) -> None:
    with budget.reserve() as one, budget.reserve() as other:
        one.add(600)
        other.add(400)
        with pytest.raises(Overloaded, match="hold 1000 bytes, 1 more do not fit, and 1000 is the limit"):
            other.add(1)


def test_a_released_reservation_makes_room(budget: BodyMemoryBudget) -> None:
    with budget.reserve() as one:
        one.add(SIZE)
    with budget.reserve() as other:
        other.add(SIZE)
        assert budget.held == SIZE
    assert budget.held == 0


def test_a_single_body_always_fits(budget: BodyMemoryBudget) -> None:
    with budget.reserve() as one, budget.reserve():
        one.add(SIZE)
        one.add(SIZE)
        assert budget.held == 2 * SIZE


def test_a_declared_length_reserves_nothing(budget: BodyMemoryBudget) -> None:
    with budget.reserve() as one, budget.reserve() as other:
        one.check(SIZE)
        other.add(SIZE)
        with pytest.raises(Overloaded):
            one.check(1)


def test_retry_after_is_the_average_time_for_which_bodies_are_held(
    budget: BodyMemoryBudget, clock: Any
) -> None:
    for _ in range(100):
        with budget.reserve() as one:
            one.add(1)
            clock.now += 4.0
    with budget.reserve() as one, budget.reserve() as other:
        one.add(SIZE)
        with pytest.raises(Overloaded) as caught:
            other.add(1)
    assert caught.value.retry_after == pytest.approx(4.0, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 700)), max_size=60))
def test_the_budget_is_never_exceeded_except_by_a_single_body(steps: list[tuple[int, int]]) -> None:
    budget = BodyMemoryBudget(SIZE, lambda: 0.0)
    contexts = {i: budget.reserve() for i in range(4)}
    places = {i: context.__enter__() for i, context in contexts.items()}
    for who, count in steps:
        try:
            places[who].add(count)
        except Overloaded:
            contexts[who].__exit__(None, None, None)
            contexts[who] = budget.reserve()
            places[who] = contexts[who].__enter__()
        held = [place.held for place in places.values()]
        assert budget.held == sum(held)
        assert budget.held <= SIZE or budget.held == max(held)


def held_bytes(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("prunepool_body_bytes")


def post(url: str, body: bytes) -> httpx.Response:
    return httpx.post(f"{url}/classify", content=body, timeout=TIMEOUT_S)


def test_a_body_is_held_until_it_is_answered(live: Callable[..., Any], held: Any, metrics: Metrics) -> None:
    server = live(held, max_buffered_bytes=SIZE)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server.url, b"x" * 600)
        held.wait_held()
        assert held_bytes(metrics) == 600
        refused = post(server.url, b"free" * 150)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert post(server.url, b"free" * 100).status_code == 200
        held.release()
        assert first.result(TIMEOUT_S).status_code == 200
    assert post(server.url, b"free" * 150).status_code == 200
    assert held_bytes(metrics) == 0


async def test_a_body_of_undeclared_length_is_refused_while_it_is_read(
    make_app: Callable[..., FastAPI], service: FakeService, connect: Any
) -> None:
    http = connect(make_app(service, max_buffered_bytes=SIZE))
    reading, going_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 600
        reading.set()
        await going_on.wait()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x" * 100

    async with asyncio.TaskGroup() as group:
        first = group.create_task(http.post("/classify", content=slow()))
        await reading.wait()
        refused = await http.post("/classify", content=chunks())
        going_on.set()
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert first.result().status_code == 200


def test_the_inference_protocol_counts_what_a_body_unpacks_to(live: Callable[..., Any], held: Any) -> None:
    server = live(held, max_buffered_bytes=200_000)
    packed = gzip.compress(bytes(150_000))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server.url, b"x" * 100_000)
        held.wait_held()
        refused = httpx.post(
            f"{server.url}/v2/models/fake_jpeg/infer",
            content=packed,
            headers={"Content-Encoding": "gzip"},
            timeout=TIMEOUT_S,
        )
        assert (refused.status_code, set(refused.json())) == (503, {"error"})
        assert "retry-after" in refused.headers
        held.release()
        first.result(TIMEOUT_S)


def test_a_client_that_disconnects_releases_its_reservation(
    live: Callable[..., Any], held: Any, metrics: Metrics
) -> None:
    server = live(held)
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 600\r\n\r\n"
    with socket.create_connection(server.address) as connection:
        connection.sendall(head + b"x" * 600)
        held.wait_held()
        assert held_bytes(metrics) == 600
    held.wait_dropped()
    post(server.url, b"free")
    assert held_bytes(metrics) == 0
