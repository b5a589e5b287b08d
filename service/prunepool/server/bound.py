"""Takes every port of the server before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from prunepool.api.listening import Claim, claim, claim_for_grpc
from prunepool.settings import Settings


@dataclass(frozen=True)
class Bound:
    """What a server listens on.

    Attributes:
        http: for HTTP.
        settings: those of the server, with the port of gRPC that 0 has become.
        shown: every address, for the line that says that the server is ready; `public_url` stands for those of
            HTTP, if it is set.
    """

    http: Claim
    settings: Settings
    shown: str


@contextmanager
def bound(settings: Settings) -> Iterator[Bound]:
    """Take the ports of HTTP and gRPC at every address of `host`, until the block ends.

    Raises:
        CannotListen: the host is unknown, or a port is in use or not allowed.
    """
    with ExitStack() as stack:
        http = stack.enter_context(claim(settings.host, settings.port, settings.frontends))
        of_http = settings.public_url or http.shown
        if settings.grpc_port is None:
            yield Bound(http, settings, of_http)
            return
        grpc = stack.enter_context(claim_for_grpc(settings.host, settings.grpc_port))
        shown = f"{of_http} and gRPC at {grpc.shown.replace('http://', '')}"
        yield Bound(http, settings.model_copy(update={"grpc_port": grpc.port}), shown)
