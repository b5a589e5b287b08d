"""A pipe between the parent and one of its children: both can call each other, and each notices the other's end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import structlog

from prunepool.errors import EngineUnavailable, PrunepoolError
from prunepool.transport.messages import Failure, error_of, failure_of

#: Called with the texts that came with the call.
Handler = Callable[..., Awaitable[Any]]
_log = structlog.stdlib.get_logger("prunepool.transport")


class Call(msgspec.Struct, tag=True, frozen=True):
    """Do something."""

    id: int
    method: str
    arguments: tuple[str, ...]


class Done(msgspec.Struct, tag=True, frozen=True):
    """It is done, or why it is not."""

    id: int
    value: Any = None
    failure: Failure | None = None


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Call | Done).decode


class ControlPipe:
    """One end of a pipe; all calls come from the event loop.

    Args:
        connection: the pipe.
        handlers: what the other end may call.
        on_close: called when the other end is gone.
    """

    def __init__(
        self, connection: Connection, handlers: Mapping[str, Handler], on_close: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._handlers = handlers
        self._on_close = on_close
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._loop.add_reader(connection.fileno(), self._receive)

    async def call(self, method: str, *arguments: str, timeout_s: float | None = None) -> Any:
        """Have the other end do something.

        Args:
            method: what.
            arguments: for it.
            timeout_s: seconds that it may take; None: as long as it wants.

        Raises:
            PrunepoolError: why it did not.
            EngineUnavailable: it is gone, or did not do it in time.
        """
        if self._closed:
            raise self._gone()
        number = next(self._ids)
        future = self._waiting[number] = self._loop.create_future()
        self._send(_encode(Call(number, method, arguments)))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            detail = f"the process that was asked to {method} has not done so within {timeout_s:g} s"
            raise EngineUnavailable(detail, retry_after=1.0) from None
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Hear no more; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone())

    def _receive(self) -> None:
        try:
            message = _decode(self._connection.recv_bytes())
        except (EOFError, OSError, msgspec.MsgspecError) as error:
            if isinstance(error, msgspec.MsgspecError):  # whoever waits for it would wait for ever
                _log.error(
                    "a message of another process cannot be read, and its pipe is closed", why=str(error)
                )
            self.close()
            self._on_close()
            return
        if isinstance(message, Call):
            task = self._loop.create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._waiting.get(message.id)
        if future is None or future.done():
            return
        if message.failure is None:
            future.set_result(message.value)
        else:
            future.set_exception(error_of(message.failure))

    async def _answer(self, call: Call) -> None:
        try:
            value = await self._handlers[call.method](*call.arguments)
            encoded = _encode(Done(call.id, value))
        except PrunepoolError as error:
            encoded = _encode(Done(call.id, failure=failure_of(error)))
        except Exception as error:
            _log.exception("unexpected error", method=call.method)
            failure = Failure("internal_error", f"{type(error).__name__}: {error}", {})
            encoded = _encode(Done(call.id, failure=failure))
        if not self._closed:
            self._send(encoded)

    def _send(self, encoded: bytes) -> None:
        try:
            self._connection.send_bytes(encoded)
        except OSError:  # the other end is gone: reading says so as well, and is acted upon
            _log.debug("the other end of a pipe is gone")

    def _gone(self) -> EngineUnavailable:
        return EngineUnavailable("the process that was asked has ended", retry_after=1.0)
