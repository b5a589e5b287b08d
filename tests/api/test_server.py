"""A real server on a real socket: disconnecting clients, endless headers, ports in use, shutdown."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from prunepool.api.framing import MAX_HEAD_BYTES
from prunepool.api.listening import claim
from prunepool.api.server import EngineLost
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.settings import Settings
from prunepool.testing import FakeService

TIMEOUT_S = 20.0
Start = Callable[..., Any]


def connect(live: Any) -> socket.socket:
    return socket.create_connection(live.address, timeout=TIMEOUT_S)


def post(body: bytes, *, length: int | None = None, headers: bytes = b"") -> bytes:
    size = len(body) if length is None else length
    return b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n%b" % (size, headers, body)


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of the only response on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")
    )
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), json.loads(body)


def test_it_serves(live: Start) -> None:
    server = live(FakeService())
    response = httpx.post(f"{server.url}/classify?reduction_ratio=0.5", content=b"photo")
    assert response.json()["reduction"]["applied"] == 0.5
    assert "server" not in response.headers


def test_a_disconnected_client_frees_its_place_and_affects_no_other(live: Start, held: Any) -> None:
    server = live(held)
    with ThreadPoolExecutor(1) as pool:
        neighbour = pool.submit(httpx.post, f"{server.url}/classify", content=b"photo", timeout=TIMEOUT_S)
        held.wait_held()
        with connect(server) as connection:
            connection.sendall(post(b"photo"))
            held.wait_held()
        held.wait_dropped()
        assert not neighbour.done()
        held.release()
        assert neighbour.result().status_code == 200


def test_a_client_that_has_pipelined_requests_and_disconnects_frees_its_place(live: Start, held: Any) -> None:
    server = live(held)
    with connect(server) as connection:
        connection.sendall(post(b"photo") * 2)
        held.wait_held()
    held.wait_dropped()


def test_a_disconnected_client_cancels_all_its_images(live: Start, held: Any) -> None:
    server = live(held)
    with connect(server) as connection:
        connection.sendall(
            post(b'{"images":["AAAA","AAAA","AAAA"]}', headers=b"Content-Type: application/json\r\n")
        )
        held.wait_held(3)
    for _ in range(3):
        held.wait_dropped()


def test_a_too_long_body_is_refused_before_it_is_sent(live: Start) -> None:
    with connect(live(FakeService(), max_body_bytes=1000)) as connection:
        connection.sendall(post(b"", length=1001, headers=b"Expect: 100-continue\r\n"))
        status, document = answer_on(connection)
    assert (status, document["code"]) == (413, "body_too_large")


def test_headers_that_do_not_end_are_refused(live: Start) -> None:
    with connect(live(FakeService())) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"x" * MAX_HEAD_BYTES)
        status, document = answer_on(connection)
    assert (status, document["code"]) == (431, "headers_too_large")


def test_long_headers_within_the_limit_are_taken(live: Start) -> None:
    response = httpx.get(
        f"{live(FakeService()).url}/healthz", headers={"X-Long": "x" * (MAX_HEAD_BYTES - 1000)}
    )
    assert response.status_code == 200


def test_the_limit_is_for_each_request_of_a_connection(live: Start) -> None:
    with httpx.Client(base_url=live(FakeService()).url) as client:
        statuses = {client.get("/healthz", headers={"X-Long": "x" * 20_000}).status_code for _ in range(4)}
    assert statuses == {200}


def test_a_drain_answers_what_was_accepted_and_refuses_the_rest(live: Start, held: Any) -> None:
    server = live(held, drain_timeout_s=TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool, connect(server) as slow, httpx.Client(base_url=server.url) as client:
        slow.sendall(post(b"half", length=1000))
        accepted = pool.submit(httpx.post, f"{server.url}/classify", content=b"photo", timeout=TIMEOUT_S)
        held.wait_held()
        server.stop()
        assert answer_on(slow)[1]["code"] == "draining"
        assert held.draining
        refused = client.post("/classify", content=b"photo")
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert 1 <= int(refused.headers["retry-after"]) <= TIMEOUT_S
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        held.release()
        assert accepted.result().status_code == 200
    assert server.join() == 0


def test_a_drain_that_times_out_fails_and_counts_the_remaining_requests(live: Start, held: Any) -> None:
    server = live(held, drain_timeout_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(httpx.post, f"{server.url}/classify", content=b"photo", timeout=TIMEOUT_S)
        held.wait_held()
        server.stop()
        assert accepted.result().json()["code"] == "draining"
    assert server.join() == 1


def test_no_connection_is_accepted_after_the_end(live: Start) -> None:
    server = live(FakeService())
    server.stop()
    assert server.join() == 0
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_many_clients_at_once(live: Start) -> None:
    service = FakeService()
    server = live(service)
    images = [b"free %d" % i for i in range(64)]
    start = threading.Barrier(8)

    def send(part: list[bytes]) -> list[int]:
        start.wait(TIMEOUT_S)
        with httpx.Client(base_url=server.url) as client:
            return [client.post("/classify", content=image).status_code for image in part]

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(send, [images[i::8] for i in range(8)]))
    assert statuses == [[200] * 8] * 8
    assert sorted(image for image, _ in service.calls) == sorted(images)


async def test_a_server_whose_engine_is_lost_answers_what_it_can_and_then_raises(
    held: Any, make_settings: Callable[..., Settings], metrics: Metrics
) -> None:
    server = factory.create_server(make_settings(drain_timeout_s=TIMEOUT_S), held, metrics, signals=False)
    bound = claim("127.0.0.1", 0)
    ready = asyncio.Event()
    serving = asyncio.create_task(server.serve_until_signal(bound.sockets, ready.set))
    await ready.wait()
    async with httpx.AsyncClient(base_url=bound.url, timeout=TIMEOUT_S) as client:
        accepted = asyncio.create_task(client.post("/classify", content=b"photo"))
        await asyncio.to_thread(held.wait_held)
        server.give_up("m: 2 restarts in a row failed")
        assert (await client.get("/healthz")).status_code == 503
        assert (await client.post("/classify", content=b"photo")).json()["code"] == "draining"
        held.release()
        assert (await accepted).status_code == 200
    with pytest.raises(EngineLost, match="does not recover in this process: m: 2 restarts in a row failed"):
        await serving
