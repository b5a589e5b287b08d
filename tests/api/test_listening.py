"""The port is taken before anything is loaded, at every address of the host, by one server alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count

import pytest

from prunepool.api.listening import CannotListen, Claim, addresses_of, claim, claim_for_grpc, make_ready

Take = Callable[[str, int], Claim]
both = pytest.mark.parametrize("take", [claim, claim_for_grpc])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@both
def test_a_claimed_port_is_in_use_for_everybody_else(take: Take) -> None:
    with take("127.0.0.1", 0) as taken:
        for other in (claim, claim_for_grpc):
            with pytest.raises(
                CannotListen, match=rf"cannot listen on 127\.0\.0\.1:{taken.port}.*: .*in use"
            ):
                other("127.0.0.1", taken.port)
        for host in ("127.0.0.1", "0.0.0.0"):
            for reuse in (0, 1):
                with socket.socket() as stranger:
                    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                    with pytest.raises(OSError, match="in use"):
                        stranger.bind((host, taken.port))


@both
def test_nobody_connects_to_a_claimed_port(take: Take) -> None:
    with take("127.0.0.1", 0) as taken, pytest.raises(ConnectionRefusedError):
        socket.create_connection(taken.addresses[0], timeout=5)


@both
def test_of_many_that_want_a_port_at_the_same_time_one_gets_it(take: Take) -> None:
    with claim("127.0.0.1", 0) as free:
        port = free.port

    def attempt(_: int) -> Claim | None:
        try:
            return take("127.0.0.1", port)
        except CannotListen:
            return None

    with ThreadPoolExecutor(16) as pool:
        for _ in range(20):
            got = [one for one in pool.map(attempt, range(16)) if one is not None]
            assert len(got) == 1
            got[0].close()


def test_a_port_can_be_taken_again_while_old_connections_time_out() -> None:
    with claim("127.0.0.1", 0) as taken:
        (bound,) = taken.sockets
        make_ready(bound)
        bound.listen()
        bound.setblocking(True)
        with socket.create_connection(taken.addresses[0]) as client:
            accepted, _ = bound.accept()
            accepted.close()  # the side that closes first waits
            client.recv(1)
    with claim("127.0.0.1", taken.port) as again:
        make_ready(again.sockets[0])
        again.sockets[0].listen()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", pytest.param("::", marks=needs_ipv6)])
def test_connections_are_shared_out_among_the_processes_of_a_claim(host: str) -> None:
    with claim(host, 0, 4) as taken, ExitStack() as stack:
        assert [len(share) for share in taken.shares] == [1] * 4
        assert len({one.getsockname() for (one,) in taken.shares}) == 1
        for other in (claim, claim_for_grpc):
            with pytest.raises(CannotListen, match="in use"):
                other(host, taken.port)
        for (one,) in taken.shares:
            make_ready(one)
            one.listen(100)
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", taken.port), timeout=5))
        assert all(accepted(one) > 5 for (one,) in taken.shares)
        with pytest.raises(CannotListen, match="in use"):
            claim(host, taken.port, 4)


def accepted(bound: socket.socket) -> int:
    """How many connections wait at a socket."""
    for number in count():
        try:
            bound.accept()[0].close()
        except BlockingIOError:
            return number
    raise AssertionError


@needs_ipv6
def test_every_address_of_a_name_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    both_of_localhost = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both_of_localhost)
    with claim("localhost", 0) as taken:
        port = taken.port
        assert taken.addresses == (("::1", port), ("127.0.0.1", port))
        assert taken.shown == f"http://[::1]:{port} and http://127.0.0.1:{port}"


@needs_ipv6
@both
def test_a_free_port_is_free_at_every_address(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port that is free at the first address may be taken at the second: then another is tried."""
    with claim("::1", 0) as six, claim("127.0.0.1", 0) as four:
        free = iter([six.port, four.port])
        monkeypatch.setattr("prunepool.api.listening.addresses_of", lambda host: ("127.0.0.1", "::1"))
        real = __import__("prunepool.api.listening", fromlist=["_free_port"])._free_port
        monkeypatch.setattr("prunepool.api.listening._free_port", lambda at: next(free, None) or real(at))
        with take("localhost", 0) as taken:
            assert {address for address, _ in taken.addresses} == {"127.0.0.1", "::1"}
            assert taken.port not in (six.port, four.port)


def test_an_address_that_is_not_here_is_left_out_if_another_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunepool.api.listening.addresses_of", lambda host: ("192.0.2.1", "127.0.0.1"))
    with claim("name", 0) as taken:
        assert taken.addresses == (("127.0.0.1", taken.port),)


def test_an_address_that_is_not_here_is_refused() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1: Cannot assign .*; choose another with --host"):
        claim("192.0.2.1", 0)


@pytest.mark.parametrize(
    "host", ["no.such.host.invalid", "a..b", "", "x" * 300, "1.2.3.4.5", "[::1", "http://x"]
)
def test_a_host_that_is_none_is_named(host: str) -> None:
    with pytest.raises(CannotListen, match="choose another with --host") as caught:
        claim(host, 0)
    assert repr(host) in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_ipv6
def test_an_address_may_stand_in_brackets() -> None:
    assert addresses_of("[::1]") == addresses_of("::1") == ("::1",)


@pytest.mark.parametrize(
    ("host", "url", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}", "http://127.0.0.1:{}"),
        ("0.0.0.0", "http://127.0.0.1:{}", "http://127.0.0.1:{} on every IPv4 address"),
        pytest.param("::1", "http://[::1]:{}", "http://[::1]:{}", marks=needs_ipv6),
        pytest.param("::", "http://[::1]:{}", "http://[::1]:{} on every address", marks=needs_ipv6),
    ],
)
def test_the_url_can_be_opened_on_this_machine(host: str, url: str, shown: str) -> None:
    with claim(host, 0) as taken:
        assert taken.url == url.format(taken.port)
        assert taken.shown == shown.format(taken.port)


@needs_ipv6
@pytest.mark.parametrize(("host", "open_at"), [("0.0.0.0", {"127.0.0.1"}), ("::", {"127.0.0.1", "::1"})])
def test_wildcards_of_http(host: str, open_at: set[str]) -> None:
    with claim(host, 0) as taken:
        make_ready(taken.sockets[0])
        taken.sockets[0].listen()
        assert {at for at in ("127.0.0.1", "::1") if is_open(at, taken.port)} == open_at


def is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
