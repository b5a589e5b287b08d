"""A client that sends slowly, sends nothing or does not read keeps its connection for a limited time."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from prunepool.testing import FakeService

TIMEOUT_S = 20.0
LIMIT_S = 0.3
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
Start = Callable[..., Any]


def connect(live: Any) -> socket.socket:
    return socket.create_connection(live.address, timeout=TIMEOUT_S)


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def problem_in(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    document: dict[str, Any] = json.loads(body)
    assert head.split()[1] == b"%d" % document["status"]
    return document


def trickle(connection: socket.socket, first: bytes, then: bytes) -> bytes:
    """Send some bytes, then single bytes until the server closes; return what it sent."""
    received = b""
    connection.settimeout(0.02)
    connection.sendall(first)
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        try:
            connection.sendall(then)
            data = connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return received
        if not data:
            return received
        received += data
    pytest.fail("the server goes on waiting")


def test_headers_that_are_too_long_though_they_come_at_once(live: Start) -> None:
    with connect(live(FakeService())) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert problem_in(until_closed(connection))["code"] == "headers_too_large"


def test_headers_that_do_not_come_to_an_end(live: Start) -> None:
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        answer = trickle(connection, b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"s")
    problem = problem_in(answer)
    assert problem["code"] == "request_timeout"
    assert "0.3 s" in problem["detail"]


def test_a_body_that_does_not_come_to_an_end(live: Start) -> None:
    service = FakeService()
    with connect(live(service, request_timeout_s=LIMIT_S)) as connection:
        answer = trickle(connection, HEAD % 1000, b"x")
    assert problem_in(answer)["code"] == "request_timeout"
    assert service.calls == []


def test_a_chunked_body_that_does_not_come_to_an_end(live: Start) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        assert problem_in(trickle(connection, head, b"1\r\nx\r\n"))["code"] == "request_timeout"


def test_the_inference_protocol_s_bodies_too(live: Start) -> None:
    head = b"POST /v2/models/fake/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        answer = trickle(connection, head, b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error"}


def test_a_silent_connection_is_closed_without_a_response(live: Start) -> None:
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        assert until_closed(connection) == b""


def test_empty_lines_are_no_request(live: Start) -> None:
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        assert problem_in(trickle(connection, b"\r\n", b"\r\n"))["code"] == "request_timeout"


def test_a_body_after_its_response_is_not_read_for_ever(live: Start) -> None:
    """The response comes before the body: without a limit the rest would be read for nothing."""
    head = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        answer = trickle(connection, head, b"x")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_the_time_counts_anew_for_each_request_of_a_connection(live: Start) -> None:
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        end = time.monotonic() + 3 * LIMIT_S
        while time.monotonic() < end:
            connection.sendall(HEAD % 5)
            connection.sendall(b"photo")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_second_request_that_stops_halfway(live: Start) -> None:
    with connect(live(FakeService(), request_timeout_s=LIMIT_S)) as connection:
        connection.sendall(HEAD % 5 + b"photo" + b"POST /classify HTT")
        answer = until_closed(connection)
    assert answer.count(b"HTTP/1.1") == 2
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


def test_a_client_that_waits_for_a_response_is_not_slow(live: Start, held: Any) -> None:
    server = live(held, request_timeout_s=LIMIT_S)
    with connect(server) as connection:
        connection.sendall(HEAD % 5 + b"photo" + b"POST /class")
        held.wait_held()
        for _ in range(2):  # each takes as long as the limit
            with connect(server) as silent:
                assert until_closed(silent) == b""
        held.release()
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer, "and then the second request is what is waited for"


def test_an_idle_connection_is_closed(live: Start) -> None:
    with connect(live(FakeService(), keep_alive_timeout_s=LIMIT_S)) as connection:
        connection.sendall(HEAD % 5 + b"photo")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_slow_clients_do_not_block_others(live: Start) -> None:
    server = live(FakeService(), request_timeout_s=TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool:
        slow = [connect(server) for _ in range(50)]
        for connection in slow:
            connection.sendall(HEAD % 1000 + b"x")
        answer = pool.submit(httpx.post, f"{server.url}/classify", content=b"photo", timeout=TIMEOUT_S)
        assert answer.result().status_code == 200
        for connection in slow:
            connection.close()


def test_the_log_names_the_client_that_was_cut_off(live: Start, log_lines: Any) -> None:
    server = live(FakeService(), request_timeout_s=LIMIT_S)
    with connect(server) as connection:
        trickle(connection, b"GET / HTTP/1.1\r\nX-Slow: ", b"s")
    with connect(server) as connection:
        trickle(connection, HEAD % 1000, b"x")
    head, body = (line for line in log_lines() if line.get("status") == 408)
    assert (head["event"], head["client"], head["code"]) == (
        "request refused",
        "127.0.0.1",
        "request_timeout",
    )
    assert (body["event"], body["path"], body["code"]) == ("request", "/classify", "request_timeout")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's TCP_USER_TIMEOUT")
def test_a_response_that_is_not_read_is_given_up(live: Start) -> None:
    server = live(FakeService(), request_timeout_s=LIMIT_S)
    images = b",".join([b'"AAAA"'] * 128)
    body = b'{"images": [%b], "explain": true}' % images
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT_S)
        connection.connect(server.address)
        head = (HEAD % len(body)).replace(b"Host: x", b"Host: x\r\nContent-Type: application/json")
        connection.sendall(head + body)
        for _ in range(6):  # each takes as long as the limit
            with connect(server) as silent:
                until_closed(silent)
        answer = until_closed(connection)
    length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(answer.partition(b"\r\n\r\n")[2]) < length
