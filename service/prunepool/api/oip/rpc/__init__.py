"""The protocol over gRPC: `inference.GRPCInferenceService`, for the clients of KServe and Triton.

It needs the extra `prunepool[grpc]`, which is imported only if `grpc_port` is set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prunepool.access import Keyring
from prunepool.api.context import AppContext
from prunepool.api.oip.statistics import Statistics
from prunepool.errors import InvalidParameter


@asynccontextmanager
async def serving(
    context: AppContext, statistics: Statistics, keyring: Keyring | None
) -> AsyncIterator[None]:
    """Serve gRPC on `grpc_port` while the block runs; do nothing if the port is unset.

    Args:
        context: context of the app.
        statistics: counts the requests.
        keyring: the valid API keys; None serves every caller.

    Raises:
        InvalidParameter: the extra is not installed.
        CannotListen: the server cannot listen on the address.
    """
    port = context.settings.grpc_port
    if port is None:
        yield
        return
    try:
        from prunepool.api.oip.rpc.server import listening
    except ModuleNotFoundError as error:
        raise InvalidParameter("grpc_port", port, "unset without pip install prunepool[grpc]") from error
    async with listening(context, statistics, keyring):
        yield
