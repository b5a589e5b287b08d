"""The health service that gRPC itself defines (`grpc.health.v1.Health`), for probes and load balancers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from prunepool.api.context import AppContext
from prunepool.api.oip.router import accepts_requests
from prunepool.api.oip.rpc.guard import SERVICE as INFERENCE
from prunepool.api.oip.rpc.guard import GrpcCall
from prunepool.errors import ModelNotFound

SERVICE = "grpc.health.v1.Health"
#: Values of the protocol's enumeration; 0 is unknown.
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
#: Names that callers may ask for: the whole server, and the one service that it has.
_SERVICES = ("", INFERENCE)
#: Seconds between two looks at the readiness for a caller that watches it.
POLL_S = 1.0


def _messages() -> tuple[type[Any], type[Any]]:
    """Make the two messages of the protocol, which would be the only use of a further package."""
    file = FileDescriptorProto(name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=FieldDescriptorProto.TYPE_STRING, label=1)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    kind = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=FieldDescriptorProto.TYPE_ENUM, type_name=kind, label=1)
    # A pool of its own, because the package of that protocol registers the same file in the common one.
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    made = (pool.FindMessageTypeByName(f"grpc.health.v1.{one.name}") for one in file.message_type)
    request_type, response_type = map(GetMessageClass, made)
    return request_type, response_type


HealthCheckRequest, HealthCheckResponse = _messages()


class Health:
    """The calls of the service. The server is healthy while every model accepts requests.

    Args:
        context: context of the app.
    """

    def __init__(self, context: AppContext) -> None:
        self._context = context

    async def check(self, message: Any, call: GrpcCall) -> Any:
        """Answer whether requests are accepted now."""
        if message.service not in _SERVICES:
            names = " and ".join(map(repr, _SERVICES))
            raise ModelNotFound(f"there is no service {message.service[:100]!r}; there are {names}")
        return HealthCheckResponse(status=self._status(message.service))

    async def watch(self, message: Any, call: GrpcCall) -> AsyncGenerator[Any]:
        """Tell the status now and whenever it changes, until the server drains."""
        async for status in self._changes(message.service):
            yield HealthCheckResponse(status=status)

    async def _changes(self, service: str) -> AsyncGenerator[int]:
        told = None
        while True:
            draining = self._context.drain.started
            status = self._status(service)
            if status != told:
                yield status
                told = status
            if draining:
                return
            await asyncio.sleep(POLL_S)

    def _status(self, service: str) -> int:
        if service not in _SERVICES:
            return SERVICE_UNKNOWN
        return SERVING if accepts_requests(self._context) else NOT_SERVING
