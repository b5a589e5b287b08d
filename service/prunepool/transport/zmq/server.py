"""An engine process's end of the connections: takes requests from all front ends, and reports its load."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
import zmq
import zmq.asyncio

from prunepool.core.types import Request
from prunepool.errors import EngineUnavailable, InvalidParameter, PrunepoolError
from prunepool.transport.client import CoreClient, ModelOffer
from prunepool.transport.messages import (
    Cancel,
    Completed,
    Failed,
    Failure,
    Handshake,
    Status,
    StatusRequest,
    Submit,
    ToFrontend,
    Unreadable,
    decode_for_engine,
    encode,
    failure_of,
    request_of,
)
from prunepool.transport.zmq.running_table import RunningTable
from prunepool.transport.zmq.shared_memory import Arena

#: Seconds between two reports of an engine: its heartbeat.
HEARTBEAT_S = 0.2
_log = structlog.stdlib.get_logger("prunepool.processes")


@dataclass(eq=False, slots=True)
class _Answering:
    """A request that is being answered.

    Attributes:
        task: answers it.
        sent_attempts: how many devices it was on before.
        request: once it has been read.
    """

    task: asyncio.Task[None]
    sent_attempts: int
    request: Request | None = None

    @property
    def attempts(self) -> int:
        """How many devices it was on."""
        return self.request.attempts if self.request else self.sent_attempts


class EngineServer:
    """Serves a core to front ends.

    Args:
        context: makes the socket.
        address: where to listen.
        core: the way to the core.
        arenas: the shared memory of each front end.
        running: shows front ends what the device had, should this process die.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        address: str,
        core: CoreClient,
        arenas: Sequence[Arena],
        running: RunningTable | None = None,
    ) -> None:
        self._address = address
        self._core = core
        self._arenas = arenas
        self._table = running
        self._socket: zmq.asyncio.Socket = context.socket(zmq.ROUTER)
        self._running: dict[bytes, dict[int, _Answering]] = {}
        self._giving_back: set[asyncio.Task[None]] = set()
        self._frontends: dict[bytes, int] = {}
        self._offers_sent: dict[bytes, Sequence[ModelOffer]] = {}
        #: The last request of each front end that the core has.
        self._last_sequence: dict[bytes, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Listen."""
        if self._table is not None:
            self._table.clear()
        socket = self._socket
        socket.linger = 0
        socket.sndhwm = socket.rcvhwm = 0
        socket.router_handover = True  # a front end that comes back takes the place that it had
        socket.bind(self._address)
        self._tasks = [asyncio.create_task(_keep(part)) for part in (self._listen, self._publish)]

    async def close(self) -> None:
        """Listen no more; requests that are still running are dropped."""
        for task in self._tasks:
            task.cancel()
        for peer in list(self._running):
            self._forget(peer)
        self._socket.close(1000)

    async def _listen(self) -> None:
        while True:
            peer, *frames = await self._socket.recv_multipart()
            try:
                frame, *rest = frames
                await self._on_message(peer, frame, rest)
            except Exception:
                # One bad message must not stop the engine, nor must anybody wait for its answer.
                _log.exception("a message could not be read", peer=peer.decode(errors="replace"))
                await self._send(peer, Unreadable())

    async def _on_message(self, peer: bytes, frame: bytes, rest: Sequence[bytes]) -> None:
        message = decode_for_engine(frame)
        if isinstance(message, Handshake):
            self._forget(peer)
            self._frontends[peer] = message.frontend
            await self._report(peer)
        elif isinstance(message, StatusRequest):
            await self._report(peer, message.id)
        elif isinstance(message, Cancel):
            self._cancel(peer, message)
        elif peer in self._frontends:
            running = self._running.setdefault(peer, {})
            task = asyncio.create_task(self._answer(peer, message, rest))
            running[message.id] = _Answering(task, message.attempts)
            task.add_done_callback(lambda _: running.pop(message.id, None))

    def _cancel(self, peer: bytes, message: Cancel) -> None:
        answering = self._running.get(peer, {}).get(message.id)
        if answering is None:  # its answer is on the way
            return
        answering.task.cancel()
        if message.give_back:
            giving_back = asyncio.create_task(self._give_back(peer, message.id, answering))
            self._giving_back.add(giving_back)
            giving_back.add_done_callback(self._giving_back.discard)

    async def _give_back(self, peer: bytes, number: int, answering: _Answering) -> None:
        await asyncio.wait([answering.task])
        if answering.task.cancelled():  # it was not answered at the last moment
            error = EngineUnavailable("the engine has given this image back", retry_after=1.0)
            await self._send(peer, Failed(number, failure_of(error), answering.attempts, given_back=True))

    def _request(self, peer: bytes, submit: Submit, rest: Sequence[bytes]) -> Request:
        if submit.slot is None:
            return request_of(submit, rest[0])
        return request_of(submit, self._arenas[self._frontends[peer]].read(submit.slot, submit.nbytes))

    async def _answer(self, peer: bytes, submit: Submit, rest: Sequence[bytes]) -> None:
        reply: ToFrontend
        answering = self._running[peer][submit.id]
        try:
            request = answering.request = self._request(peer, submit, rest)
            self._last_sequence[peer] = submit.id
            with self._shown(peer, submit, request):
                reply = await self._complete(peer, submit, request)
        except PrunepoolError as error:
            reply = Failed(submit.id, failure_of(error), answering.attempts)
        except Exception:
            _log.exception("unexpected error")
            detail = "the server failed unexpectedly; its log says more"
            reply = Failed(submit.id, Failure(PrunepoolError.code, detail, {}))
        await self._send(peer, reply)

    @contextmanager
    def _shown(self, peer: bytes, submit: Submit, request: Request) -> Iterator[None]:
        """Show front ends whether the device has a request, until it is over."""
        row = None if self._table is None else self._table.row(self._frontends[peer], submit.id)
        request.mark = row
        try:
            yield
        finally:
            if row is not None:
                request.mark = None
                row.free()

    async def _complete(self, peer: bytes, submit: Submit, request: Request) -> Completed:
        model = submit.model
        with self._core.reserve(
            model, submit.generation, submit.ratio_spec, submit.deadline, 0
        ) as reservation:
            self._check_pixels(submit)
            result = await reservation.submit(request)
        load = self._core.loads().get(model)
        drain_s = load.drain_s if load else 0.0
        return Completed(submit.id, model, result, drain_s, self._last_sequence.get(peer, 0))

    def _check_pixels(self, submit: Submit) -> None:
        """Refuse pixels that would fail on the device, and cost others their answers while it restarts.

        Raises:
            InvalidParameter: the model takes no pixels of this dtype and shape.
        """
        size = self._core.offers()[submit.model].preprocess.size
        fitting = {"uint8": (size, size, 3), "float32": (3, size, size)}
        if submit.shape != fitting.get(submit.dtype):
            got = f"{submit.dtype} {list(submit.shape)}"
            raise InvalidParameter("pixels", got, f"uint8 [{size}, {size}, 3] or float32 [3, {size}, {size}]")

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for peer in list(self._frontends):
                await self._report(peer)

    async def _report(self, peer: bytes, request: int | None = None) -> None:
        """Send a status; what is served goes along only where that has changed."""
        offers = tuple(self._core.offers().values())
        changed = self._offers_sent.get(peer) != offers
        self._offers_sent[peer] = offers
        status = Status(
            self._core.default_model,
            dict(self._core.loads()),
            offers if changed else None,
            request,
            self._last_sequence.get(peer, 0),
            dict(self._core.failures()),
        )
        await self._send(peer, status)

    async def _send(self, peer: bytes, message: ToFrontend) -> None:
        await self._socket.send_multipart([peer, encode(message)])

    def _forget(self, peer: bytes) -> None:
        """Drop what a front end had asked for before its connection was lost."""
        for answering in self._running.pop(peer, {}).values():
            answering.task.cancel()
        self._offers_sent.pop(peer, None)
        self._last_sequence.pop(peer, None)


async def _keep(part: Callable[[], Awaitable[None]]) -> None:
    """Run a part for ever, whatever it raises."""
    while True:
        try:
            await part()
        except Exception:
            _log.exception("unexpected error")
            await asyncio.sleep(HEARTBEAT_S)
