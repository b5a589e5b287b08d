"""An engine process's end of the links: takes questions from all front ends, and says how it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
import zmq
import zmq.asyncio

from prunepool.core.types import Pixels
from prunepool.errors import PrunepoolError
from prunepool.serving.types import Inference, Options
from prunepool.transport.messages import (
    Answer,
    Ask,
    Cancel,
    Failed,
    Failure,
    Handshake,
    Load,
    Offer,
    State,
    StatusRequest,
    ToFrontend,
    decode_for_engine,
    encode,
    failure_of,
    offers_differ,
    pixels_of,
)
from prunepool.transport.zmq.shared_memory import Arena

#: Seconds between two words about how the engine is doing.
EVERY_S = 0.2
_log = structlog.stdlib.get_logger("prunepool.transport")


class Hosted(Protocol):
    """What is asked: `LocalEngine` is one."""

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""

    def offers(self) -> Sequence[Offer]:
        """What is served."""

    def loads(self) -> Mapping[str, Load]:
        """How each model is doing."""

    async def infer_decoded(
        self, pixels: Pixels, options: Options, *, arrival: float, decode_s: float
    ) -> Inference:
        """The logits of an image that was decoded elsewhere."""


class Host:
    """Serves an engine to front ends.

    Args:
        context: makes the socket.
        address: where to listen.
        engine: what answers.
        arenas: the shared memory of each front end.
    """

    def __init__(
        self, context: zmq.asyncio.Context, address: str, engine: Hosted, arenas: Sequence[Arena]
    ) -> None:
        self._address = address
        self._engine = engine
        self._arenas = arenas
        self._socket: zmq.asyncio.Socket = context.socket(zmq.ROUTER)
        self._asked: dict[bytes, dict[int, asyncio.Task[None]]] = {}
        self._frontends: dict[bytes, int] = {}
        self._told: dict[bytes, Sequence[Offer]] = {}
        #: The last question of each front end that the engine has.
        self._heard: dict[bytes, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Listen."""
        socket = self._socket
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.router_handover = True  # a front end that comes back takes the place that it had
        socket.bind(self._address)
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._publish())]

    async def close(self) -> None:
        """Listen no more; what is being answered is dropped."""
        for task in self._tasks:
            task.cancel()
        for peer in list(self._asked):
            self._forget(peer)
        self._socket.close(1000)

    async def _listen(self) -> None:
        while True:
            peer, frame, *rest = await self._socket.recv_multipart()
            try:
                await self._take(peer, frame, rest)
            except Exception:  # one bad message must not make the engine deaf
                _log.exception("a message could not be taken", peer=peer.decode(errors="replace"))

    async def _take(self, peer: bytes, frame: bytes, rest: Sequence[bytes]) -> None:
        message = decode_for_engine(frame)
        if isinstance(message, Handshake):
            self._forget(peer)
            self._frontends[peer] = message.frontend
            await self._tell(peer)
        elif isinstance(message, StatusRequest):
            await self._tell(peer, message.id)
        elif isinstance(message, Cancel):
            if (task := self._asked.get(peer, {}).get(message.id)) is not None:
                task.cancel()
        elif peer in self._frontends:
            task = asyncio.create_task(self._answer(peer, message, rest))
            tasks = self._asked.setdefault(peer, {})
            tasks[message.id] = task
            task.add_done_callback(lambda _: tasks.pop(message.id, None))

    def _pixels(self, peer: bytes, ask: Ask, rest: Sequence[bytes]) -> Pixels:
        if ask.slot is None:
            return pixels_of(ask, rest[0])
        return pixels_of(ask, self._arenas[self._frontends[peer]].read(ask.slot, ask.nbytes))

    async def _answer(self, peer: bytes, ask: Ask, rest: Sequence[bytes]) -> None:
        reply: ToFrontend
        try:
            pixels = self._pixels(peer, ask, rest)
            self._heard[peer] = ask.id
            inference = await self._engine.infer_decoded(
                pixels, ask.options, arrival=ask.arrival, decode_s=ask.decode_s
            )
            load = self._engine.loads().get(inference.model)
            reply = Answer(ask.id, inference, load.drain_s if load else 0.0, self._heard.get(peer, 0))
        except PrunepoolError as error:
            reply = Failed(ask.id, failure_of(error))
        except Exception:
            _log.exception("unexpected error")
            detail = "the server failed unexpectedly; its log says more"
            reply = Failed(ask.id, Failure(PrunepoolError.code, detail, {}))
        await self._send(peer, reply)

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            for peer in list(self._frontends):
                await self._tell(peer)

    async def _tell(self, peer: bytes, look: int | None = None) -> None:
        """Say how things are; what is served only where that has changed."""
        # `ready` is the word of the second; it travels as what is missing.
        offers = tuple(
            Offer(replace(offer.info, ready=True), offer.preprocess) for offer in self._engine.offers()
        )
        new = offers if offers_differ(self._told.get(peer), offers) else None
        self._told[peer] = offers
        loads, heard = dict(self._engine.loads()), self._heard.get(peer, 0)
        await self._send(peer, State(self._engine.default_model, loads, new, look, heard))

    async def _send(self, peer: bytes, message: ToFrontend) -> None:
        await self._socket.send_multipart([peer, encode(message)])

    def _forget(self, peer: bytes) -> None:
        """What a front end had asked for before it was lost or began anew."""
        for task in self._asked.pop(peer, {}).values():
            task.cancel()
        self._told.pop(peer, None)
        self._heard.pop(peer, None)
