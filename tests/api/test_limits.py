"""The length of a body is limited, declared or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from prunepool.api.body_memory import BodyMemoryBudget, BodyReservation
from prunepool.api.connection import read_body
from prunepool.errors import BodyTooLarge
from prunepool.testing import FakeService

LIMIT = 1000


@pytest.fixture
def http(make_app: Callable[..., FastAPI], service: FakeService, connect: Any) -> httpx.AsyncClient:
    client: httpx.AsyncClient = connect(make_app(service, max_body_bytes=LIMIT, max_images_per_request=2))
    return client


async def test_a_body_of_the_limit_is_accepted(http: httpx.AsyncClient) -> None:
    assert (await http.post("/classify", content=b"x" * LIMIT)).status_code == 200


async def test_a_longer_body_is_refused_with_the_limit(http: httpx.AsyncClient, service: FakeService) -> None:
    response = await http.post("/classify", content=b"x" * (LIMIT + 1))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert response.json()["limit"] == LIMIT
    assert service.calls == []


async def test_a_longer_body_of_undeclared_length_is_refused_too(http: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert (await http.post("/classify", content=chunks())).status_code == 413


@pytest.fixture
def reservation() -> Iterator[BodyReservation]:
    """A reservation in a large budget."""
    with BodyMemoryBudget(10 * LIMIT, lambda: 0.0).reserve() as made:
        yield made


def request_with(headers: dict[str, str], *, chunks: list[bytes]) -> tuple[Request, list[bytes]]:
    """A request, and its chunks that are not read yet."""
    scope = {
        "type": "http",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    return Request(scope, receive), chunks


@pytest.mark.parametrize("declared", ["1001", "9" * 5000])
async def test_a_declared_length_is_refused_before_anything_is_read(
    reservation: BodyReservation, declared: str
) -> None:
    request, left = request_with({"content-length": declared}, chunks=[b"x"])
    with pytest.raises(BodyTooLarge):
        await read_body(request, LIMIT, reservation)
    assert left == [b"x"]


async def test_reading_ends_where_the_limit_is_passed(reservation: BodyReservation) -> None:
    request, left = request_with({}, chunks=[b"x" * 600, b"x" * 600, b"never read"])
    with pytest.raises(BodyTooLarge):
        await read_body(request, LIMIT, reservation)
    assert left == [b"never read"]


async def test_the_number_of_images_is_limited(http: httpx.AsyncClient, service: FakeService) -> None:
    response = await http.post("/classify", files=[("file", b"x")] * 3)
    assert (response.status_code, response.json()["parameter"]) == (422, "file")
    assert service.calls == []
