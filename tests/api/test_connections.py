"""The number of connections is limited: idle ones are closed, otherwise new ones get an error."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from prunepool.metrics import Metrics
from prunepool.testing import FakeService

TIMEOUT_S = 20.0
MOST = 3
#: The server says when it begins to wait for the body, which does not come: the connection is busy.
BUSY = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
WHOLE = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nphoto"


@pytest.fixture
def stack() -> Any:
    with ExitStack() as made:
        yield made


@pytest.fixture
def server(live: Callable[..., Any]) -> Any:
    return live(FakeService(), max_connections=MOST)


def connected(stack: ExitStack, server: Any, said: bytes = b"") -> socket.socket:
    """A connection that has sent a request."""
    connection = stack.enter_context(socket.create_connection(server.address, timeout=TIMEOUT_S))
    connection.sendall(said)
    return connection


def busy(stack: ExitStack, server: Any) -> socket.socket:
    """A connection in the middle of a request."""
    connection = connected(stack, server, BUSY)
    assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
    return connection


def answer_of(connection: socket.socket) -> bytes:
    """One answer, from its first byte to its last."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(65536)
        if not data:
            return answer
        answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def is_open(connection: socket.socket) -> bool:
    connection.sendall(WHOLE)
    try:
        return answer_of(connection).startswith(b"HTTP/1.1 200")
    except ConnectionResetError:
        return False


def test_the_connection_idle_longest_is_closed_for_a_new_one(stack: ExitStack, server: Any) -> None:
    first, second, third = (connected(stack, server) for _ in range(MOST))
    assert is_open(first)  # asked something, so that the second is idle longest now
    assert is_open(third)
    fourth = connected(stack, server)
    assert is_open(fourth)
    assert second.recv(1) == b""
    assert is_open(first)
    assert is_open(third)


def test_without_an_idle_connection_a_new_one_gets_retry_after(
    stack: ExitStack, server: Any, metrics: Metrics
) -> None:
    for _ in range(MOST):
        busy(stack, server)
    refused = connected(stack, server)
    head, _, body = answer_of(refused).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in head
    problem = json.loads(body)
    assert (problem["code"], problem["retry_after"]) == ("overloaded", 1)
    assert "3 connections are open" in problem["detail"]
    assert refused.recv(1) == b""
    labels = {"route": "none", "status": "503", "code": "overloaded"}
    assert metrics.registry.get_sample_value("prunepool_http_requests_total", labels) == 1


def test_a_closed_connection_makes_room_for_a_new_one(stack: ExitStack, server: Any) -> None:
    first, *_ = [busy(stack, server) for _ in range(MOST)]
    assert answer_of(connected(stack, server)).startswith(b"HTTP/1.1 503 ")
    first.close()
    end = time.monotonic() + TIMEOUT_S
    while (status := httpx.post(f"{server.url}/classify", content=b"photo").status_code) != 200:
        assert (status, time.monotonic() < end) == (503, True)


def test_a_connection_that_waits_for_a_response_is_not_idle(
    stack: ExitStack, live: Callable[..., Any], held: Any
) -> None:
    server = live(held, max_connections=MOST)
    waiting = [connected(stack, server, WHOLE) for _ in range(MOST)]
    held.wait_held(MOST)
    assert answer_of(connected(stack, server)).startswith(b"HTTP/1.1 503 ")
    held.release()
    for connection in waiting:
        assert answer_of(connection).startswith(b"HTTP/1.1 200 ")
