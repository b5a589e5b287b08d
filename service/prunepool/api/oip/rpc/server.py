"""The gRPC server beside the HTTP server, on the same event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog
from tritonclient.grpc import service_pb2

from prunepool.access import Keyring
from prunepool.api.oip.rpc.calls import Calls
from prunepool.api.oip.rpc.guard import SERVICE, Guard
from prunepool.api.oip.statistics import Statistics
from prunepool.api.server import CannotListen
from prunepool.api.services import Services

#: For answers that are written but not yet taken by their clients.
_LAST_WRITES_S = 1.0
_log = structlog.stdlib.get_logger("prunepool.grpc")


@asynccontextmanager
async def listening(here: Services, statistics: Statistics, keyring: Keyring | None) -> AsyncIterator[int]:
    """Serve gRPC while the block runs.

    Args:
        here: the parts behind the calls; `grpc_port` is the port, 0 takes a free one and logs it.
        statistics: where requests are counted.
        keyring: who may ask; everybody if None.

    Yields:
        The port.

    Raises:
        CannotListen: the address cannot be listened on.
    """
    settings = here.settings
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ),
        maximum_concurrent_rpcs=settings.max_connections,
    )
    guard = Guard(keyring, here.metrics, protect_health=settings.protect_health)
    server.add_generic_rpc_handlers((handlers(Calls(here, statistics), guard),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port: int = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {host}:{settings.grpc_port} for gRPC") from error
    await server.start()
    _log.info("gRPC", address=f"{host}:{port}")
    try:
        yield port
    finally:
        await server.stop(_LAST_WRITES_S)


def handlers(calls: Calls, guard: Guard) -> grpc.GenericRpcHandler:
    """The service; what it does not have is answered with UNIMPLEMENTED."""
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    made = {
        name: grpc.unary_unary_rpc_method_handler(guard.unary(name, handle), **_codec(methods[name]))
        for name, handle in calls.unary().items()
    }
    name = "ModelStreamInfer"
    stream = guard.stream(name, calls.model_stream_infer)
    made[name] = grpc.stream_stream_rpc_method_handler(stream, **_codec(methods[name]))
    return grpc.method_handlers_generic_handler(SERVICE, made)


def _codec(method: object) -> dict[str, object]:
    taken, given = (
        getattr(service_pb2, getattr(method, kind).name) for kind in ("input_type", "output_type")
    )
    return {"request_deserializer": taken.FromString, "response_serializer": given.SerializeToString}
