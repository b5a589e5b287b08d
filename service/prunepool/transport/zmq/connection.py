"""A front end's connection to one engine process: questions out, answers in, and word at once when it is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from prunepool.serving.types import Inference
from prunepool.transport.messages import (
    Answer,
    Ask,
    Cancel,
    Failed,
    Handshake,
    Offer,
    State,
    StatusRequest,
    ToEngine,
    decode_for_frontend,
    encode,
    error_of,
)
from prunepool.transport.zmq.backlog import Backlog

#: An engine process that says nothing for so long, not even that it is alive, is lost. A busy one still does:
#: it is not its event loop that answers.
_HEARTBEAT_MS, _SILENCE_MS = 300, 1200
_RECONNECT_MS = 20


class Disconnected(Exception):
    """The engine is gone, and with it what it had."""


class Link:
    """To one engine process.

    Args:
        context: makes the sockets.
        address: where the engine listens.
        frontend: number of this front end.
        on_change: called whenever what is known of the engine changes.
        clock: seconds, monotonic.

    Attributes:
        state: what the engine said of itself last; None while it is not there.
        offers: what it serves; what it served last, while it is not there.
        backlogs: what it has to do, by model.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        address: str,
        frontend: int,
        on_change: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._address = address
        self._frontend = frontend
        self._on_change = on_change
        self._clock = clock
        self._socket: zmq.asyncio.Socket = context.socket(zmq.DEALER)
        self._waiting: dict[int, asyncio.Future[Inference]] = {}
        self._looking: dict[int, asyncio.Future[None]] = {}
        self._looks = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []
        self._monitor: zmq.asyncio.Socket | None = None
        self.state: State | None = None
        self.offers: tuple[Offer, ...] = ()
        self.backlogs: defaultdict[str, Backlog] = defaultdict(Backlog)

    @property
    def pending(self) -> int:
        """Questions without an answer."""
        return len(self._waiting)

    def open(self) -> None:
        """Connect, and again whenever that is lost."""
        socket = self._socket
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        # Nothing is kept for an engine that is not there: what it missed is asked of another.
        socket.immediate = 1
        socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS, _SILENCE_MS
        socket.handshake_ivl = _SILENCE_MS
        socket.reconnect_ivl = _RECONNECT_MS
        socket.routing_id = f"frontend-{self._frontend}".encode()
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        socket.connect(self._address)
        self._tasks = [asyncio.create_task(self._watch(self._monitor)), asyncio.create_task(self._listen())]

    def close(self) -> None:
        """Disconnect; whoever still waits for an answer has lost the engine."""
        for task in self._tasks:
            task.cancel()
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._monitor = None
        self._socket.close(0)
        self._lose()

    async def ask(self, ask: Ask, pixels: bytes | None) -> Inference:
        """The answer to a question.

        Args:
            ask: the question.
            pixels: what is not in shared memory.

        Raises:
            PrunepoolError: what the engine says instead of answering.
            Disconnected: the engine is gone.
            asyncio.CancelledError: the caller went away; the engine is told.
        """
        future: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        self._waiting[ask.id] = future
        self.backlogs[ask.options.model or ""].send(ask.id)
        try:
            await self._send(ask, pixels)
            return await future
        except asyncio.CancelledError:
            with suppress(Disconnected):  # who is gone need not be told, and the caller leaves all the same
                await self._send(Cancel(ask.id))
            raise
        finally:
            del self._waiting[ask.id]

    async def look(self) -> None:
        """Have the engine say how it is doing, now; at once where it is not there."""
        if self.state is None:
            return
        number = next(self._looks)
        future = self._looking[number] = asyncio.get_running_loop().create_future()
        try:
            with suppress(Disconnected):  # then there is nothing to be seen
                await self._send(StatusRequest(number))
                await future
        finally:
            del self._looking[number]

    async def _send(self, message: ToEngine, pixels: bytes | None = None) -> None:
        frames = [encode(message)] if pixels is None else [encode(message), pixels]
        try:
            await self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            raise Disconnected("the engine is not there") from None

    async def _listen(self) -> None:
        while True:
            (frame,) = await self._socket.recv_multipart()
            self._heard(decode_for_frontend(frame))

    async def _watch(self, monitor: Any) -> None:
        """The connection comes and goes; a new one may be to another process than the last."""
        while True:
            event = (await recv_monitor_message(monitor))["event"]
            self._lose()
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                with suppress(Disconnected):  # it is gone again already, which is the next event
                    await self._send(Handshake(self._frontend))

    def _heard(self, message: Answer | Failed | State) -> None:
        if isinstance(message, State):
            self.state = message
            self.offers = self.offers if message.offers is None else message.offers
            for name, load in message.loads.items():
                self.backlogs[name].say(load.drain_s, message.heard, self._clock())
            self._on_change()
            if message.look is not None and (seen := self._looking.get(message.look)) is not None:
                _finish(seen)
            return
        future = self._waiting.get(message.id)
        if isinstance(message, Answer):
            self.backlogs[message.inference.model].say(message.drain_s, message.heard, self._clock())
            if future is not None and not future.done():
                future.set_result(message.inference)
        elif future is not None and not future.done():
            future.set_exception(error_of(message.error))

    def _lose(self) -> None:
        self.state = None
        self.backlogs.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Disconnected("the engine is gone"))
        for seen in self._looking.values():
            _finish(seen)
        self._on_change()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
