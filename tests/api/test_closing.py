"""However a connection ends, real clients can read the last response; and vanished ones are noticed."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from raw_http import RawConnection

from prunepool.settings import Settings
from prunepool.testing import FakeService

Start = Callable[..., Any]
LARGE = 64 * 1024 * 1024
MOST = 3
POST = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nphoto"


def with_asyncio(server: Any, body: bytes) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        received = await reader.read()
        writer.close()
        head, _, document = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(document)["code"]

    return asyncio.run(run())


def with_httpx(server: Any, body: bytes) -> tuple[int, str]:
    response = httpx.post(f"{server.url}/classify", content=body, timeout=20)
    return response.status_code, response.json()["code"]


def with_urllib(server: Any, body: bytes) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(
            urllib.request.Request(f"{server.url}/classify", body, {"Content-Type": "image/jpeg"})
        )
    return caught.value.code, json.load(caught.value)["code"]


def with_http_client(server: Any, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.address)
    connection.request("POST", "/classify", body)
    response = connection.getresponse()
    found = response.status, json.load(response)["code"]
    connection.close()
    return found


@pytest.fixture(scope="module")
def server(serving: Any) -> Iterator[Any]:
    """A server over a fake engine, with a low limit on bodies."""
    with serving(Settings.model_construct(max_body_bytes=1000), FakeService()) as url:
        where = httpx.URL(url)
        yield SimpleNamespace(url=url, address=(where.host, where.port))


CLIENTS = (with_asyncio, with_httpx, with_urllib, with_http_client)
clients = pytest.mark.parametrize("ask", CLIENTS)


@pytest.fixture
def busy(live: Start) -> Iterator[Any]:
    """A server all of whose places are taken by requests that do not end."""
    server = live(FakeService(), max_connections=MOST)
    with ExitStack() as stack:
        for _ in range(MOST):
            connection = stack.enter_context(RawConnection(server.address))
            connection.send(POST.replace(b"\r\n\r\n", b"0\r\nExpect: 100-continue\r\n\r\n"))
            assert connection.socket.recv(100).startswith(b"HTTP/1.1 100")
        yield server


@clients
def test_a_client_for_whom_there_is_no_place_reads_why(busy: Any, ask: Any) -> None:
    assert [ask(busy, b"photo" * 10_000) for _ in range(10)] == [(503, "overloaded")] * 10


def test_many_for_whom_there_is_no_place(busy: Any) -> None:
    async def run() -> list[int]:
        async with httpx.AsyncClient(base_url=busy.url, limits=httpx.Limits(max_connections=16)) as client:
            posts = (client.post("/classify", content=b"photo" * 1000) for _ in range(40))
            return [response.status_code for response in await asyncio.gather(*posts)]

    assert asyncio.run(run()) == [503] * 40


def test_a_client_without_a_place_that_says_nothing_is_told_and_let_go(busy: Any) -> None:
    with RawConnection(busy.address) as connection:
        (response,) = connection.responses()
    assert (response.status, response.headers["retry-after"]) == (503, "1")


@clients
def test_a_client_that_still_sends_its_body_reads_that_it_is_too_long(server: Any, ask: Any) -> None:
    assert ask(server, bytes(LARGE)) == (413, "body_too_large")


def test_a_client_that_still_sends_its_body_reads_that_it_needs_a_key(live: Start, tmp_path: Any) -> None:
    (tmp_path / "keys.toml").write_text("")
    server = live(FakeService(), api_keys_file=tmp_path / "keys.toml")
    for ask in CLIENTS:
        assert ask(server, bytes(LARGE // 8)) == (401, "unauthorized")


def test_a_client_that_sends_for_ever_is_cut_off(live: Start) -> None:
    server = live(FakeService(), max_body_bytes=1000, request_timeout_s=0.3)
    with RawConnection(server.address) as connection:
        connection.send(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n")
        end = time.monotonic() + 20
        try:
            while time.monotonic() < end:
                connection.socket.sendall(bytes(65536))
        except (BrokenPipeError, ConnectionResetError):
            return
    pytest.fail("the server goes on reading")


def test_a_connection_that_only_discards_makes_room_for_another(live: Start) -> None:
    server = live(FakeService(), max_connections=1, max_body_bytes=1000)
    with RawConnection(server.address) as connection:
        connection.send(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        response = connection.response()
        assert response is not None
        assert response.status == 413
        assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_half_closed_connection_gets_its_answers(server: Any, requests: int, version: bytes) -> None:
    sent = POST.replace(b"HTTP/1.1\r\n", b"HTTP/%b\r\nConnection: keep-alive\r\n" % version)
    with RawConnection(server.address) as connection:
        connection.send(sent * requests)
        connection.socket.shutdown(socket.SHUT_WR)
        assert [response.status for response in connection.responses()] == [200] * requests


def test_a_half_closed_connection_waits_for_its_answer(live: Start, held: Any) -> None:
    """After a while an interim response is sent, which clients of HTTP/1.1 pass over."""
    server = live(held)
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(POST)
        connection.shutdown(socket.SHUT_WR)
        held.wait_held()
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        held.release()
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200
        response.read()
        assert connection.recv(1) == b""


def test_a_client_that_vanishes_without_a_reset_is_noticed(live: Start, held: Any) -> None:
    server = live(held)
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(POST)
        held.wait_held()
    held.wait_dropped()


def test_half_a_request_on_a_half_closed_connection_is_no_request(live: Start) -> None:
    service = FakeService()
    with RawConnection(live(service).address) as connection:
        connection.send(POST[:-1])
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.responses() == []
    assert service.calls == []


def test_http_1_0_keeps_a_connection_if_it_is_asked_to(server: Any) -> None:
    sent = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with RawConnection(server.address) as connection:
        for _ in range(3):
            response = connection.send(sent).response()
            assert response is not None
            assert (response.status, response.headers["connection"]) == (200, "keep-alive")
        (last,) = connection.send(b"GET /healthz HTTP/1.0\r\n\r\n").responses()
        assert (last.status, last.headers["connection"]) == (200, "close")


def test_http_1_0_is_never_told_to_continue(server: Any) -> None:
    sent = b"POST /classify HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nphoto"
    with RawConnection(server.address) as connection:
        (response,) = connection.send(sent).responses()
    assert response.status == 200
