"""A front end's connection to one engine process: requests out, results in, and notice at once when it is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from prunepool.core.types import Result
from prunepool.transport.client import ModelOffer
from prunepool.transport.messages import (
    Cancel,
    Completed,
    Handshake,
    Status,
    StatusRequest,
    Submit,
    ToEngine,
    ToFrontend,
    Unreadable,
    decode_for_frontend,
    encode,
)
from prunepool.transport.zmq.backlog import EngineBacklog
from prunepool.transport.zmq.failures import Disconnected, MessageLost, RequestFailed, Unsent
from prunepool.transport.zmq.running_table import RunningTable
from prunepool.transport.zmq.server import HEARTBEAT_S

#: An engine whose event loop has sent nothing for so many heartbeats is lost: 1.0 to 1.2 s.
_MISSED_HEARTBEATS = 5
_HANDSHAKE_MS, _RECONNECT_MS = 1200, 20
_log = structlog.stdlib.get_logger("prunepool.processes")


class EngineConnection:
    """The connection to one engine process.

    Args:
        context: makes the sockets.
        address: where the engine listens.
        frontend: number of this front end.
        on_change: called whenever what is known of the engine changes.
        clock: seconds, monotonic.
        heartbeat_s: seconds between two heartbeats.
        running: shows what the engine's device had, should it be lost; without it, whatever the engine had counts.

    Attributes:
        status: the engine's last; None while it is not connected.
        offers: what it serves; what it served last, while it is not connected.
        backlogs: what it has to do, by model.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        address: str,
        frontend: int,
        on_change: Callable[[], None],
        clock: Callable[[], float],
        heartbeat_s: float = HEARTBEAT_S,
        running: RunningTable | None = None,
    ) -> None:
        self._address = address
        self._frontend = frontend
        self._on_change = on_change
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._table = running
        self._socket: zmq.asyncio.Socket = context.socket(zmq.DEALER)
        self._pending: dict[int, asyncio.Future[Result]] = {}
        self._submitted: dict[int, Submit] = {}
        self._asked_back: set[asyncio.Task[None]] = set()
        self._refreshing: dict[int, asyncio.Future[None]] = {}
        self._refreshes = itertools.count()
        self._received = False
        self._tasks: list[asyncio.Task[None]] = []
        self._monitor: zmq.asyncio.Socket | None = None
        self.status: Status | None = None
        self.offers: tuple[ModelOffer, ...] = ()
        self.backlogs: defaultdict[str, EngineBacklog] = defaultdict(EngineBacklog)

    def open(self) -> None:
        """Connect, and again whenever the connection is lost."""
        socket = self._socket
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        # Do not queue messages while disconnected: the caller sends the request to another engine.
        socket.immediate = 1
        socket.handshake_ivl = _HANDSHAKE_MS
        socket.reconnect_ivl = _RECONNECT_MS
        socket.routing_id = f"frontend-{self._frontend}".encode()
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        socket.connect(self._address)
        parts = (self._follow_connection, self._listen, self._watch_heartbeat)
        self._tasks = [asyncio.create_task(self._keep(part)) for part in parts]

    def close(self) -> None:
        """Disconnect; requests that are still pending are lost."""
        for task in self._tasks:
            task.cancel()
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._monitor = None
        self._socket.close(0)
        self._lose()

    async def submit(self, submit: Submit, pixels: bytes | None) -> Result:
        """The result of a request.

        Args:
            submit: the request.
            pixels: what is not in shared memory.

        Raises:
            RequestFailed: the engine's error instead of a result.
            Unsent: there is no connection.
            Disconnected: the engine died, or stopped answering.
            asyncio.CancelledError: the caller went away; the engine is told.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending[submit.id] = future
        self._submitted[submit.id] = submit
        self.backlogs[submit.model].send(submit.id)
        try:
            await self._send(submit, pixels)
            return await future
        except Unsent:
            self._lose()  # the event that says so is still to come
            raise
        except asyncio.CancelledError:
            with suppress(Disconnected):  # then the engine has dropped it already
                await self._send(Cancel(submit.id))
            raise
        finally:
            del self._pending[submit.id]
            self._submitted.pop(submit.id, None)
            if future.done() and not future.cancelled():
                future.exception()  # of a loss that came while nobody waited here: asyncio would log it as an error

    def ask_back(self, model: str, elsewhere: Callable[[str], bool]) -> None:
        """Ask the engine for requests that another engine could answer; each is asked for once.

        Args:
            model: their model.
            elsewhere: whether another engine could answer those of a generation.
        """
        for number, submit in list(self._submitted.items()):
            if submit.model == model and elsewhere(submit.generation):
                del self._submitted[number]
                task = asyncio.create_task(self._ask_back(number))
                self._asked_back.add(task)
                task.add_done_callback(self._asked_back.discard)

    async def _ask_back(self, number: int) -> None:
        with suppress(Disconnected):  # then it is back already
            await self._send(Cancel(number, give_back=True))

    async def refresh(self) -> None:
        """Wait for a new status of the engine; returns at once if it is not connected."""
        if self.status is None:
            return
        number = next(self._refreshes)
        future = self._refreshing[number] = asyncio.get_running_loop().create_future()
        try:
            with suppress(Disconnected):  # then no status will come
                await self._send(StatusRequest(number))
                await future
        finally:
            del self._refreshing[number]

    async def _send(self, message: ToEngine, pixels: bytes | None = None) -> None:
        frames = [encode(message)] if pixels is None else [encode(message), pixels]
        try:
            await self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            raise Unsent("there is no connection to the engine") from None

    async def _keep(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part for ever; when it ends, for whatever reason, reset the connection."""
        while True:
            try:
                await part()
            except Exception:
                _log.exception("engine connection failed and is reset", engine=self._address)
                # A part that fails every time must not take the processor.
                await asyncio.sleep(self._heartbeat_s)
            await self._reset()

    async def _reset(self) -> None:
        """Fail all requests pending on this engine, and handshake again so that it drops them too."""
        self._lose()
        with suppress(Disconnected):
            await self._send(Handshake(self._frontend))

    async def _listen(self) -> None:
        while True:
            (frame,) = await self._socket.recv_multipart()
            self._received = True
            self._on_message(decode_for_frontend(frame))

    async def _follow_connection(self) -> None:
        """Follow connects and disconnects; a new connection may be to another process than the last."""
        monitor: Any = self._monitor
        while True:
            event = (await recv_monitor_message(monitor))["event"]
            self._lose()
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                with suppress(Disconnected):  # lost again already, which is the next event
                    await self._send(Handshake(self._frontend))

    async def _watch_heartbeat(self) -> None:
        """Return when the engine has been silent for too long.

        It counts missed intervals rather than elapsed time: after a stall of this front end, buffered heartbeats
        are read before the next check.
        """
        missed = 0
        while missed < _MISSED_HEARTBEATS:
            await asyncio.sleep(self._heartbeat_s)
            missed = 0 if self._received or self.status is None else missed + 1
            self._received = False
        _log.error(
            "engine does not answer",
            engine=self._address,
            silent_s=round(missed * self._heartbeat_s, 1),
            pending=len(self._pending),
        )

    def _on_message(self, message: ToFrontend) -> None:
        if isinstance(message, Unreadable):
            raise MessageLost(f"{self._address} could not read a message")
        if isinstance(message, Status):
            self.status = message
            self.offers = self.offers if message.offers is None else message.offers
            for name, load in message.loads.items():
                self.backlogs[name].update(load.drain_s, message.last_sequence, self._clock())
            self._on_change()
            if message.request is not None and (waiting := self._refreshing.get(message.request)) is not None:
                _finish(waiting)
            return
        future = self._pending.get(message.id)
        if isinstance(message, Completed):
            self.backlogs[message.model].update(message.drain_s, message.last_sequence, self._clock())
            if future is not None and not future.done():
                future.set_result(message.result)
        elif future is not None and not future.done():
            future.set_exception(RequestFailed(message))

    def _lose(self) -> None:
        self.status = None
        self.backlogs.clear()
        blamed = self._pending if self._table is None else self._table.numbers(self._frontend)
        for number, future in self._pending.items():
            if not future.done():
                lost = Disconnected("the connection to the engine was lost")
                lost.on_device = number in blamed
                future.set_exception(lost)
        for waiting in self._refreshing.values():
            _finish(waiting)
        self._on_change()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
