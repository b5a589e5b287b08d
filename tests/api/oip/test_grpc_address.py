"""Where gRPC listens: on every address of the host, beside the other front ends, and nowhere else."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from prunepool.api.body_memory import BodyMemoryBudget
from prunepool.api.context import AppContext
from prunepool.api.drain import Drain
from prunepool.api.listening import CannotListen, Claim, claim_for_grpc
from prunepool.api.oip.rpc.server import listening
from prunepool.api.oip.statistics import Statistics
from prunepool.metrics import Metrics
from prunepool.testing import FakeService

Listen = Callable[..., Awaitable[int]]


@pytest.fixture(autouse=True)
def quiet(log_lines: object) -> None:
    """Discard the server's log."""


@pytest.fixture
async def listen(metrics: Metrics, make_settings: Any) -> AsyncIterator[Listen]:
    """Serve gRPC until the end of the test, as each front end does; the port."""
    async with AsyncExitStack() as stack:

        async def listen(host: str, port: int) -> int:
            settings = make_settings(host=host, grpc_port=port)
            drain, budget = Drain(1.0, time.monotonic), BodyMemoryBudget(1, time.monotonic)
            context = AppContext(FakeService(), settings, metrics, drain, budget)
            return await stack.enter_async_context(listening(context, Statistics(), None))

        yield listen


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""
    found = [
        (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0))
        for one in addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def reached(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client:
        return client.connect_ex((host, port)) == 0


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


async def test_front_ends_share_a_claimed_port(listen: Listen) -> None:
    with claim_for_grpc("127.0.0.1", 0) as claimed:
        for _ in range(2):
            assert await listen("127.0.0.1", claimed.port) == claimed.port
        assert reached("127.0.0.1", claimed.port)
        with pytest.raises(CannotListen, match=r"for gRPC: .* in use; choose another with --grpc-port"):
            claim_for_grpc("127.0.0.1", claimed.port)


@needs_ipv6
async def test_every_address_of_a_name_is_served(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "::1")
    with claim_for_grpc("localhost", 0) as claimed:
        await listen("localhost", claimed.port)
        assert reached("127.0.0.1", claimed.port)
        assert reached("::1", claimed.port)


async def test_an_address_that_this_machine_does_not_have_is_passed_over(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    with claim_for_grpc("name.example", 0) as claimed:
        await listen("name.example", claimed.port)
        assert reached("127.0.0.1", claimed.port)
    resolve_to(monkeypatch, "192.0.2.1")
    with pytest.raises(CannotListen, match=r"cannot listen on name\.example:8001 for gRPC"):
        await listen("name.example", 8001)


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "served", "closed"),
    [("0.0.0.0", "127.0.0.1", "::1"), ("::1", "::1", "127.0.0.1"), ("[::1]", "::1", "127.0.0.1")],
)
async def test_the_addresses_of_other_kinds_are_closed(
    listen: Listen, host: str, served: str, closed: str
) -> None:
    """By itself gRPC takes 0.0.0.0 for every address of the machine."""
    claimed: Claim
    with claim_for_grpc(host, 0) as claimed:
        await listen(host, claimed.port)
        assert reached(served, claimed.port)
        assert not reached(closed, claimed.port)
