"""The addresses that a server listens on: taken before anything is loaded, by one server alone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Self

#: How often another free port is tried where the first is taken on one of several addresses.
_FREE_PORT_TRIES = 20
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_EVERYWHERE = {"0.0.0.0": " on every IPv4 address", "::": " on every address"}  # noqa: S104
#: An address that the name has and this machine has not: IPv6 may be switched off.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})


class CannotListen(OSError):
    """The server cannot listen on an address; the message says why and what to change, in one line."""


class Claim:
    """Sockets bound to addresses that no other process can listen on. Nobody can connect before they listen.

    Args:
        shares: sockets of each process that is to listen, one for each address, in the order of the name service.
        more: further sockets to be closed with them.

    Attributes:
        shares: as they were given.
        addresses: address and port of each socket of a share.
    """

    def __init__(self, shares: Sequence[Sequence[socket.socket]], more: Sequence[socket.socket] = ()) -> None:
        self.shares = tuple(tuple(share) for share in shares)
        self._more = tuple(more)
        self.addresses: tuple[tuple[str, int], ...] = tuple(one.getsockname()[:2] for one in self.sockets)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets of the first process."""
        return self.shares[0]

    @property
    def port(self) -> int:
        """The port, the same at every address."""
        return self.addresses[0][1]

    @property
    def url(self) -> str:
        """The URL of the first address, for a browser on this machine."""
        return _url(*self.addresses[0])

    @property
    def shown(self) -> str:
        """The URLs of all addresses, for people."""
        return " and ".join(_url(host, port) + _EVERYWHERE.get(host, "") for host, port in self.addresses)

    def close(self) -> None:
        """Close the sockets of this process; processes that have inherited them keep theirs."""
        for one in (*chain(*self.shares), *self._more):
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def addresses_of(host: str) -> tuple[str, ...]:
    """Return every address of a host.

    Args:
        host: a name or an address, IPv4 or IPv6, also in brackets.

    Raises:
        CannotListen: the name is unknown.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        if not bare:
            raise OSError(errno.EINVAL, "a name or an address is needed")
        found = socket.getaddrinfo(bare, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host!r}: {error.strerror}; choose another with --host"
        ) from error
    except UnicodeError as error:  # a label of a name is empty or too long
        raise CannotListen(f"cannot listen on {host!r}: it is no name; choose another with --host") from error
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def claim(host: str, port: int, processes: int = 1) -> Claim:
    """Take every address of a host, for HTTP.

    Args:
        host: a name or an address, IPv4 or IPv6, also in brackets.
        port: the port; 0 takes one that is free at all addresses.
        processes: how many processes are to listen. Each gets sockets of its own, among which the kernel shares
            connections out evenly (SO_REUSEPORT); from one socket, whoever wakes up first takes most of a burst.

    Raises:
        CannotListen: the host is unknown, or the port is in use or not allowed at one of its addresses.
    """
    first = _take_all(addresses_of(host), port, "", "--host or --port")
    shares = [first]
    try:
        if processes > 1:
            _open_to_ours(first)
        while len(shares) < processes:
            shares.append([])
            shares[-1].extend(_join(one) for one in first)
    except BaseException:
        Claim(shares).close()
        raise
    return Claim(shares)


def claim_for_grpc(host: str, port: int) -> Claim:
    """Take every address of a host for servers that bind by themselves with SO_REUSEPORT, as gRPC's do.

    The claim is to be kept for as long as they serve. gRPC opens IPv6 where it is told 0.0.0.0, unless IPv6's
    port is taken: so it is taken here.

    Args:
        host: a name or an address, IPv4 or IPv6, also in brackets.
        port: the port; 0 takes one that is free at all addresses.

    Raises:
        CannotListen: the host is unknown, or the port is in use or not allowed at one of its addresses.
    """
    addresses = addresses_of(host)
    sockets = _take_all(addresses, port, " for gRPC", "--grpc-port")
    _open_to_ours(sockets)
    blocked = []
    if addresses == ("0.0.0.0",):  # noqa: S104
        try:
            blocked.append(_take("::", sockets[0].getsockname()[1], only_v6=True))
        except OSError as error:
            # A port in use is another server's, so gRPC cannot open it either.
            if error.errno not in _NOT_HERE | {errno.EADDRINUSE}:
                raise
    return Claim([sockets], blocked)


def _open_to_ours(taken: Sequence[socket.socket]) -> None:
    """Let sockets with SO_REUSEPORT bind beside those of a claim: this user's, and no server that makes a claim."""
    for one in taken:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _join(taken: socket.socket) -> socket.socket:
    """Bind another socket to the address of one of a claim."""
    made = socket.socket(taken.family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if taken.family == socket.AF_INET6:
            only_v6 = taken.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        made.bind(taken.getsockname())
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _take_all(addresses: Sequence[str], port: int, purpose: str, settings: str) -> list[socket.socket]:
    """Take a port at every address that this machine has."""
    for left in reversed(range(_FREE_PORT_TRIES)):
        with ExitStack() as stack:
            taken: list[socket.socket] = []
            missing: OSError | None = None
            number = port
            for address in addresses:
                try:
                    number = number or _free_port(address)
                    taken.append(stack.enter_context(_take(address, number, only_v6=len(addresses) > 1)))
                except OSError as error:
                    if error.errno in _NOT_HERE:
                        missing = error
                        continue
                    if error.errno == errno.EADDRINUSE and port == 0 and left:
                        break
                    where = _url(address, number).removeprefix("http://")
                    raise CannotListen(
                        f"cannot listen on {where}{purpose}: {error.strerror}; choose another with {settings}"
                    ) from error
            else:
                if not taken:
                    assert missing is not None
                    raise CannotListen(
                        f"cannot listen on {', '.join(addresses)}{purpose}: {missing.strerror};"
                        " choose another with --host"
                    ) from missing
                stack.pop_all()
                return taken
    raise AssertionError("the last try returns or raises")


def _take(address: str, port: int, *, only_v6: bool) -> socket.socket:
    """Bind a socket so that no other can bind, without connections yet.

    A port that is bound with SO_REUSEADDR, as is needed while connections of an earlier server time out, can be
    bound by others in the same way until somebody listens. Linux lets one of them listen, and keeps the port bound
    when it stops: without SO_REUSEADDR then, it is this socket's alone.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_v6)
        made.bind((address, port))
        made.listen()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        made.shutdown(socket.SHUT_RD)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def make_ready(bound: socket.socket) -> None:
    """Prepare a socket of a claim to listen again, while connections of an earlier server may still time out."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _free_port(address: str) -> int:
    """Return a port that is free now: only a port that was asked for stays bound when a socket stops listening."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port


def _url(host: str, port: int) -> str:
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
