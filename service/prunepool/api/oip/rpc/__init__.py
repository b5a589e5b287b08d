"""The protocol over gRPC: `inference.GRPCInferenceService`, as KServe's and Triton's clients call it.

An optional extra: `pip install prunepool[grpc]` brings the library and the messages. Nothing here imports
them until a port is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prunepool.access import Keyring
from prunepool.api.oip.statistics import Statistics
from prunepool.api.services import Services
from prunepool.errors import InvalidParameter


@asynccontextmanager
async def serving(here: Services, statistics: Statistics, keyring: Keyring | None) -> AsyncIterator[None]:
    """Serve gRPC on `grpc_port` while the block runs; nothing where that is unset.

    Args:
        here: the parts behind the calls.
        statistics: where requests are counted.
        keyring: who may ask; everybody if None.

    Raises:
        InvalidParameter: the extra is not installed.
        CannotListen: the address cannot be listened on.
    """
    port = here.settings.grpc_port
    if port is None:
        yield
        return
    try:
        from prunepool.api.oip.rpc.server import listening
    except ModuleNotFoundError as error:
        raise InvalidParameter("grpc_port", port, "unset without pip install prunepool[grpc]") from error
    async with listening(here, statistics, keyring):
        yield
