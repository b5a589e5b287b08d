"""The gRPC server beside the HTTP server, on the same event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from prunepool.access import Keyring
from prunepool.api.context import AppContext
from prunepool.api.listening import CannotListen, addresses_of
from prunepool.api.oip.rpc.calls import Calls
from prunepool.api.oip.rpc.guard import SERVICE, Guard
from prunepool.api.oip.rpc.health import SERVICE as HEALTH_SERVICE
from prunepool.api.oip.rpc.health import Health, HealthCheckRequest, HealthCheckResponse
from prunepool.api.oip.statistics import Statistics
from prunepool.errors import RequestError

#: Keepalive pings may come as often as this. The limit of gRPC itself is one in five minutes: it closes connections
#: of clients and proxies that send more.
MIN_PING_INTERVAL_MS = 1000
#: A connection that has been silent for so long is asked whether its client still lives, and is closed if there is
#: no answer. Otherwise the streams of a client that has vanished keep their places for hours.
_PING_SILENT_MS, _PONG_MS = 30_000, 20_000
#: The most places that each kind of stream takes, as shares of all; what is left is for calls that end. Watches
#: need no key.
_STREAMS, _WATCHES = 1 / 2, 1 / 4
#: The largest number that an option of gRPC may be.
_MAX_INT = 2**31 - 1
#: How long clients may take to read their responses at the end.
_FLUSH_TIMEOUT_S = 1.0
_log = structlog.stdlib.get_logger("prunepool.grpc")


@asynccontextmanager
async def listening(
    context: AppContext, statistics: Statistics, keyring: Keyring | None
) -> AsyncIterator[int]:
    """Serve gRPC while the block runs.

    Args:
        context: context of the app; `grpc_port` 0 takes a free port and logs it.
        statistics: counts the requests.
        keyring: the valid API keys; None serves every caller.

    Yields:
        The port.

    Raises:
        CannotListen: the server cannot listen on the address.
    """
    settings = context.settings
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),  # beside the claim that keeps others out, and other front ends
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_time_ms", _PING_SILENT_MS),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            ("grpc.http2.max_pings_without_data", 0),  # no limit
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_connection_idle_ms", round(min(settings.keep_alive_timeout_s * 1000, _MAX_INT))),
            ("grpc.server_handshake_timeout_ms", round(settings.request_timeout_s * 1000)),
        ),
        maximum_concurrent_rpcs=settings.max_connections,
    )
    guard = Guard(
        keyring,
        context.metrics,
        settings.request_timeout_s,
        protect_health=settings.protect_health,
        only_ipv4=settings.host == "0.0.0.0",  # noqa: S104
    )
    places = settings.max_connections
    served = (
        inference_handlers(Calls(context, statistics), guard, max(1, int(places * _STREAMS))),
        health_handlers(Health(context), guard, max(1, int(places * _WATCHES))),
    )
    server.add_generic_rpc_handlers(served)
    port = _listen(server, settings.host, settings.grpc_port or 0)
    await server.start()
    _log.info("gRPC", port=port)
    try:
        yield port
    finally:
        await server.stop(_FLUSH_TIMEOUT_S)


def _listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """Listen on every address of a host that this machine has; return the port.

    Raises:
        CannotListen: there is none.
    """
    failure: RuntimeError | None = None
    listening = 0
    for address in addresses_of(host):
        where = f"[{address}]" if ":" in address else address
        try:
            listening = port = server.add_insecure_port(f"{where}:{port}")
        except RuntimeError as error:  # IPv6 may be switched off: what has to be free, the claim has seen to
            failure = error
    if not listening:
        text = f"cannot listen on {host}:{port} for gRPC; choose another with --grpc-port"
        raise CannotListen(text) from failure
    return listening


def health_handlers(health: Health, guard: Guard, most_watches: int) -> grpc.GenericRpcHandler:
    """Return the handlers of gRPC's health service."""
    codec = {
        "request_deserializer": _reader(HealthCheckRequest),
        "response_serializer": HealthCheckResponse.SerializeToString,
    }
    made = {
        "Check": grpc.stream_stream_rpc_method_handler(
            guard.unary("Check", health.check, HEALTH_SERVICE), **codec
        ),
        "Watch": grpc.stream_stream_rpc_method_handler(
            guard.unary_stream("Watch", health.watch, HEALTH_SERVICE, most_watches), **codec
        ),
    }
    return grpc.method_handlers_generic_handler(HEALTH_SERVICE, made)


def inference_handlers(calls: Calls, guard: Guard, most_streams: int) -> grpc.GenericRpcHandler:
    """Return the handlers of the protocol; gRPC answers calls without one with UNIMPLEMENTED."""
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    made = {
        name: grpc.stream_stream_rpc_method_handler(guard.unary(name, handle), **_codec(methods[name]))
        for name, handle in calls.unary().items()
    }
    name = "ModelStreamInfer"
    stream = guard.stream(name, calls.model_stream_infer, SERVICE, most_streams)
    made[name] = grpc.stream_stream_rpc_method_handler(stream, **_codec(methods[name]))
    return grpc.method_handlers_generic_handler(SERVICE, made)


def _codec(method: object) -> dict[str, object]:
    request, response = (
        getattr(service_pb2, getattr(method, kind).name) for kind in ("input_type", "output_type")
    )
    return {"request_deserializer": _reader(request), "response_serializer": response.SerializeToString}


def _reader(kind: Any) -> Callable[[bytes], Any]:
    """Return what reads a message of a type, and takes bytes that are none for the caller's error."""

    def read(content: bytes) -> Any:
        try:
            return kind.FromString(content)
        except DecodeError as error:
            limit = f"{len(content)} bytes are no {kind.DESCRIPTOR.name}: {error}"
            raise RequestError(f"the call's message cannot be read: {limit}") from None

    return read
