"""The drain: which requests it waits for, which it refuses, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from prunepool.api.drain import Drain
from prunepool.errors import Draining
from prunepool.testing import FakeService


@pytest.fixture
def drain(clock: Any) -> Drain:
    return Drain(10.0, clock)


async def test_before_the_drain_every_request_is_accepted(drain: Drain) -> None:
    async with drain.receiving():
        pass
    async with drain.answering():
        assert drain.in_flight == 1
    assert (drain.started, drain.in_flight) == (False, 0)


async def test_new_requests_are_refused_until_the_drain_times_out(drain: Drain, clock: Any) -> None:
    drain.begin()
    clock.now += 4
    with pytest.raises(Draining, match="new requests") as error:
        async with drain.receiving():
            pytest.fail("a new request was taken")
    assert error.value.retry_after == 6


async def test_beginning_twice_changes_nothing(drain: Drain, clock: Any) -> None:
    drain.begin()
    clock.now += 4
    drain.begin()
    assert drain.remaining_s == 6


async def test_a_request_that_is_still_arriving_is_refused(drain: Drain) -> None:
    async def receive() -> None:
        async with drain.receiving():
            await asyncio.Event().wait()

    task = asyncio.create_task(receive())
    await asyncio.sleep(0)
    drain.begin()
    with pytest.raises(Draining, match="had not arrived"):
        await task


async def test_an_accepted_request_is_waited_for(drain: Drain) -> None:
    answer = asyncio.Event()

    async def respond() -> str:
        async with drain.answering():
            await answer.wait()
            return "answered"

    task = asyncio.create_task(respond())
    await asyncio.sleep(0)
    drain.begin()
    finished = asyncio.create_task(drain.finished())
    await asyncio.sleep(0)
    assert not finished.done()
    answer.set()
    assert await finished
    assert await task == "answered"


async def test_every_accepted_request_is_waited_for(drain: Drain) -> None:
    async with drain.answering():
        async with drain.answering():
            drain.begin()
        finished = asyncio.create_task(drain.finished())
        await asyncio.sleep(0)
        assert not finished.done()
    assert await finished


async def test_with_nothing_in_flight_the_drain_ends_at_once(drain: Drain) -> None:
    drain.begin()
    assert await drain.finished()


async def test_the_drain_times_out_with_requests_in_flight(drain: Drain, clock: Any) -> None:
    drain.begin()
    async with drain.answering():
        clock.now += 10
        assert not await drain.finished()
        assert drain.in_flight == 1


async def test_an_abandoned_request_gets_an_error(drain: Drain) -> None:
    async def respond() -> None:
        async with drain.answering():
            await asyncio.Event().wait()

    task = asyncio.create_task(respond())
    await asyncio.sleep(0)
    drain.begin()
    drain.abandon()
    with pytest.raises(Draining, match="not answered in time"):
        await task
    assert await drain.finished()


async def test_a_timeout_of_the_work_itself_is_not_mistaken_for_the_drain(drain: Drain) -> None:
    with pytest.raises(TimeoutError):
        async with drain.answering():
            raise TimeoutError


async def test_a_draining_server_refuses_without_asking_the_engine(
    app: FastAPI, http: httpx.AsyncClient, service: FakeService
) -> None:
    app.state.context.drain.begin()
    response = await http.post("/classify", content=b"photo")
    assert (response.status_code, response.json()["code"]) == (503, "draining")
    assert int(response.headers["retry-after"]) >= 1
    assert service.calls == []


async def test_a_draining_server_still_shows_its_state(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.state.context.drain.begin()
    found = {
        path: (await http.get(path)).status_code for path in ("/healthz", "/readyz", "/metrics", "/models")
    }
    assert found == {"/healthz": 200, "/readyz": 503, "/metrics": 200, "/models": 200}


async def test_the_lifespan_starts_and_closes_the_engine(
    make_app: Callable[..., FastAPI], service: Any
) -> None:
    service.ready = False
    app = make_app(service)
    async with app.router.lifespan_context(app):
        assert (service.ready, service.closed) == (True, False)
    assert service.closed
