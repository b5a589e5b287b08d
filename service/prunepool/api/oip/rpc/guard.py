"""Wraps every call: authentication, the log line, the metric, and errors as gRPC statuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from starlette.datastructures import Headers

from prunepool.access import Caller, Keyring
from prunepool.api.access import presented_key
from prunepool.api.oip.rpc.disconnect import disconnect
from prunepool.api.options import HEADER
from prunepool.api.problems import error_headers
from prunepool.api.request_ids import request_id
from prunepool.errors import Forbidden, Overloaded, PrunepoolError, RequestError, RequestTimeout
from prunepool.metrics import Metrics

SERVICE = "inference.GRPCInferenceService"
#: The last two are those of gRPC's own health service.
_HEALTH = frozenset({"ServerLive", "ServerReady", "Check", "Watch"})
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
#: Seconds after which a caller for whose stream there was no place may try again.
_BUSY_S = 10.0
_log = structlog.stdlib.get_logger("prunepool.grpc")


@dataclass(slots=True)
class GrpcCall:
    """A call that passed authentication.

    Attributes:
        remaining_ms: milliseconds until the caller's deadline; None without one.
        charge: charges a number of images to the caller's rate limit.
        ratios: values of the metadata `x-reduction-ratio`.
        caller: owner of the key; None if the server has no keys.
        fields: further fields of its log line.
        peer: address of its client, as gRPC writes it.
    """

    remaining_ms: float | None
    charge: Callable[[int], None]
    ratios: tuple[str, ...] = ()
    caller: Caller | None = None
    fields: dict[str, object] = field(default_factory=dict)
    peer: str = ""


class Guard:
    """Authenticates, logs and counts calls.

    gRPC gives a call its place when its headers arrive, and waits without limit for a message, and for its client
    to read the response. So every handler is one of a stream of messages and of responses, whatever the protocol
    says, which on the wire is the same: the guard reads the message, once it knows the caller, and writes the
    response, and neither takes for ever.

    Args:
        keyring: the valid API keys; None serves every caller.
        metrics: counts the calls.
        request_timeout_s: longest time that the message of a call may take to arrive, and a response to be read.
        protect_health: whether health calls need a key too.
        only_ipv4: whether calls over IPv6 are refused. Told 0.0.0.0, gRPC listens on IPv6 too, if that is free.
    """

    def __init__(
        self,
        keyring: Keyring | None,
        metrics: Metrics,
        request_timeout_s: float,
        *,
        protect_health: bool,
        only_ipv4: bool = False,
    ) -> None:
        self._keyring = keyring
        self._metrics = metrics
        self._request_timeout_s = request_timeout_s
        self._only_ipv4 = only_ipv4
        self._open = frozenset() if protect_health else _HEALTH

    def unary(
        self, name: str, handle: Callable[[Any, GrpcCall], Any], service: str = SERVICE
    ) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
        """Wrap a handler of single messages."""

        async def guarded(messages: Any, context: Any) -> None:
            async with self._call(service, name, context) as call:
                await self._send(await handle(await self._message(messages), call), call, context)

        return guarded

    def unary_stream(
        self, name: str, handle: Callable[[Any, GrpcCall], AsyncGenerator[Any]], service: str, most: int
    ) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
        """Wrap a handler that answers one message with a stream, like :meth:`stream`."""

        async def after_message(messages: Any, call: GrpcCall) -> AsyncGenerator[Any]:
            async with aclosing(handle(await self._message(messages), call)) as responses:
                async for response in responses:
                    yield response

        return self.stream(name, after_message, service, most)

    def stream(
        self, name: str, handle: Callable[[Any, GrpcCall], AsyncGenerator[Any]], service: str, most: int
    ) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
        """Wrap a handler that answers a stream of messages with a stream.

        The deadline is that of the stream, not of each message. A stream may be idle for as long as its caller
        likes, so no more than `most` are open: they must not take the places of all other calls.
        """
        opened = 0

        async def guarded(messages: Any, context: Any) -> None:
            nonlocal opened
            async with self._call(service, name, context) as call:
                if opened >= most:
                    detail = f"{opened} calls of {name} are open, and that is the limit"
                    raise Overloaded(detail, retry_after=_BUSY_S)
                call.remaining_ms = None
                opened += 1
                try:
                    async with aclosing(handle(messages, call)) as responses:
                        async for response in responses:
                            await self._send(response, call, context)
                finally:
                    opened -= 1

        return guarded

    async def _send(self, response: Any, call: GrpcCall, context: Any) -> None:
        """Send a response; a client that does not read it in time is disconnected.

        HTTP/2 lets a client announce that it has no room, for ever, and gRPC waits: its calls would keep their
        places for good.
        """

        def give_up() -> None:
            found = disconnect(call.peer)
            _log.info("disconnected, as it reads no response", client=call.peer, found=found)

        timer = asyncio.get_running_loop().call_later(self._request_timeout_s, give_up)
        try:
            await context.write(response)
        except grpc.aio.InternalError as error:  # there is no client any more
            raise asyncio.CancelledError from error
        finally:
            timer.cancel()

    async def _message(self, messages: AsyncIterator[Any]) -> Any:
        """Return the message of a call that has one.

        Raises:
            RequestTimeout: it has not arrived in time.
            RequestError: the caller has sent none.
        """
        limit_s = self._request_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                async for message in messages:
                    return message
        except TimeoutError:
            raise RequestTimeout(f"the call's message did not arrive within {limit_s:g} s") from None
        raise RequestError("the call has no message; send one")

    @asynccontextmanager
    async def _call(self, service: str, name: str, context: Any) -> AsyncIterator[GrpcCall]:
        """Authenticate a call, run it, and turn its error into a status."""
        start = time.perf_counter()
        metadata = Headers(
            raw=[
                (key.encode(), value if isinstance(value, bytes) else value.encode())
                for key, value in context.invocation_metadata()
            ]
        )
        identity = request_id(metadata)
        # Asked now: a stream that its caller cancels between two answers is tidied up after gRPC has freed the
        # call, and to ask it for anything then ends the process (SIGSEGV).
        peer = context.peer()
        status = grpc.StatusCode.CANCELLED
        remaining_s = context.time_remaining()
        call = GrpcCall(
            None if remaining_s is None else remaining_s * 1000,
            lambda images: None,
            tuple(metadata.getlist(HEADER)),
            peer=peer,
        )
        with structlog.contextvars.bound_contextvars(request_id=identity):
            context.set_trailing_metadata((("x-request-id", identity),))
            try:
                try:
                    if self._only_ipv4 and peer.startswith("ipv6:"):
                        raise Forbidden("the server is for IPv4 alone, as its host is 0.0.0.0")
                    self._authenticate(name, metadata, call)
                    yield call
                    status = grpc.StatusCode.OK
                except PrunepoolError as caught:
                    error = caught
                except Exception:
                    _log.exception("unexpected error")
                    error = PrunepoolError("the server failed unexpectedly; its log says more")
                if status is not grpc.StatusCode.OK:
                    status = _STATUS.get(error.status, grpc.StatusCode.INTERNAL)
                    call.fields["code"] = error.code
                    headers = {"x-request-id": identity, **error_headers(error)}
                    trailing = tuple((key.lower(), value) for key, value in headers.items())
                    await context.abort(status, error.detail, trailing)
            finally:
                code = call.fields.get("code", "ok")
                self._metrics.grpc_calls.labels(name, status.name, code).inc()
                write = _log.debug if name in _HEALTH else _log.info
                write(
                    "call",
                    method=f"{service}/{name}",
                    client=peer,
                    status=status.name,
                    ms=round((time.perf_counter() - start) * 1000, 2),
                    **call.fields,
                )

    def _authenticate(self, name: str, metadata: Headers, call: GrpcCall) -> None:
        if self._keyring is None or name in self._open:
            return
        caller = self._keyring.identify(presented_key(metadata))
        call.caller = caller
        call.fields["key"] = caller.name
        call.charge = caller.spend
