"""The client address of a proxy is used only if the proxy is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from prunepool.api.listening import CannotListen
from prunepool.testing import FakeService

Start = Callable[..., Any]
Lines = Callable[[], list[dict[str, Any]]]


def client_logged(server: Any, log_lines: Lines, forwarded: str | None) -> object:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    httpx.get(f"{server.url}/models", headers=headers)
    server.stop()
    server.join()  # the line is written after the answer
    (line,) = (line for line in log_lines() if line["event"] == "request")
    client: object = line["client"]
    return client


@pytest.mark.parametrize("settings", [{}, {"trusted_proxies": "10.0.0.0/8"}])
def test_the_headers_of_an_unknown_proxy_are_ignored(
    live: Start, log_lines: Lines, settings: dict[str, Any]
) -> None:
    server = live(FakeService(), **settings)
    assert client_logged(server, log_lines, "203.0.113.7") == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (None, "127.0.0.1"),
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("1.2.3.4, 203.0.113.7", "203.0.113.7"),
        ("1.2.3.4, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ('no "address', "no%20%22address"),
    ],
)
def test_a_trusted_proxy_is_believed_but_not_its_clients(
    live: Start, log_lines: Lines, forwarded: str | None, client: str
) -> None:
    server = live(FakeService(), trusted_proxies="127.0.0.1, 10.0.0.0/8")
    assert client_logged(server, log_lines, forwarded) == client


def test_a_proxy_is_trusted_over_ipv4_where_one_socket_serves_both(live: Start, log_lines: Lines) -> None:
    try:
        server = live(FakeService(), host="::", trusted_proxies="127.0.0.1")
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    headers = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Prefix": "/vit"}
    docs = httpx.get(f"http://127.0.0.1:{server.address[1]}/docs", headers=headers)
    assert "/vit/openapi.json" in docs.text
    httpx.get(f"http://127.0.0.1:{server.address[1]}/docs")
    server.stop()
    server.join()
    assert [line["client"] for line in log_lines() if line["event"] == "request"] == [
        "203.0.113.7",
        "127.0.0.1",
    ]
