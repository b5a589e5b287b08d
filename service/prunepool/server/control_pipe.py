"""A pipe between the parent and one of its children: both can call each other, and each notices the other's end.

Neither ever waits for the other to read or to go on writing: a process may be stopped between two bytes. Each
message comes after its length.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
from collections.abc import Awaitable, Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import structlog

from prunepool.errors import EngineUnavailable, PrunepoolError, why_of
from prunepool.transport.messages import Failure, error_of, failure_of

#: Called with the texts that came with the call.
Handler = Callable[..., Awaitable[Any]]
#: The length of a message, in bytes.
_LENGTH = struct.Struct("!I")
_READ_BYTES = 1 << 16
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
        self._received, self._unsent = bytearray(), bytearray()
        os.set_blocking(connection.fileno(), False)
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
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone())

    def _receive(self) -> None:
        try:
            received = os.read(self._connection.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # the other end is gone, and had not read everything
            received = b""
        if not received:
            self._hang_up()
            return
        self._received += received
        while not self._closed and (encoded := self._next()) is not None:
            try:
                self._handle(_decode(encoded))
            except msgspec.MsgspecError as error:  # whoever waits for it would wait for ever
                _log.error(
                    "a message of another process cannot be read, and its pipe is closed", why=str(error)
                )
                self._hang_up()

    def _next(self) -> bytes | None:
        """Take the next message out of what has been received; None if it is not whole yet."""
        if len(self._received) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        encoded = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        return encoded

    def _hang_up(self) -> None:
        self.close()
        self._on_close()

    def _handle(self, message: Call | Done) -> None:
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
            failure = Failure("internal_error", why_of(error), {})
            encoded = _encode(Done(call.id, failure=failure))
        if not self._closed:
            self._send(encoded)

    def _send(self, encoded: bytes) -> None:
        """Send a message; what the pipe does not take now follows when there is room."""
        waiting = bool(self._unsent)
        self._unsent += _LENGTH.pack(len(encoded)) + encoded
        if not waiting:
            self._send_more()

    def _send_more(self) -> None:
        descriptor = self._connection.fileno()
        try:
            del self._unsent[: os.write(descriptor, self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the other end is gone: reading says so as well, and is acted upon
            _log.debug("the other end of a pipe is gone")
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(descriptor, self._send_more)
        else:
            self._loop.remove_writer(descriptor)

    def _gone(self) -> EngineUnavailable:
        return EngineUnavailable("the process that was asked has ended", retry_after=1.0)
