"""The `CoreClient` of an ingress replica: calls engine replicas through Ray's handle; Ray chooses which one."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog

from prunepool.core.registry import not_served
from prunepool.core.types import RatioSpec, Request, Result
from prunepool.errors import EngineUnavailable, ModelNotFound, ModelReplaced
from prunepool.transport.client import ModelLoad, ModelOffer
from prunepool.transport.early_refusal import FrontendLimits
from prunepool.transport.messages import (
    Completed,
    Failed,
    Status,
    Submit,
    decode_for_frontend,
    encode,
    error_of,
    submit_of,
)

#: Seconds between two status requests, and after which a silent replica counts as disconnected.
STATUS_EVERY_S, SILENCE_S = 0.5, 5.0
#: How long a status request may take.
_STATUS_S = 2.0
#: While models change: how long a request is tried until a replica serves its model, and the pause between tries.
_CHANGE_S = 20.0
_PAUSE_S = 0.05
_RETRY_S = 5.0
_log = structlog.stdlib.get_logger("prunepool.ray")


class RayCoreClient:
    """The `CoreClient` of an ingress; all calls come from the event loop.

    Args:
        handle: Ray's, to :class:`prunepool.ray_app.engine.EngineReplica`.
        lost: what Ray raises for a call to a replica that has died.
        wait_s: how long a request may take, seconds; waiting for a replica included.
        limits: of this ingress.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        handle: Any,
        lost: tuple[type[Exception], ...],
        wait_s: float,
        limits: FrontendLimits,
        clock: Callable[[], float],
    ) -> None:
        self._handle = handle
        self._lost = lost
        self._silent: tuple[type[Exception], ...] = (TimeoutError, *lost)
        self._wait_s = wait_s
        self._limits = limits
        self._clock = clock
        self._sequence = itertools.count()
        self._statuses: dict[str, tuple[float, Status]] = {}
        self._polling: asyncio.Task[None] | None = None
        self._reported = asyncio.Event()
        self._default = ""
        self._offers: dict[str, ModelOffer] = {}

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._default

    def offers(self) -> Mapping[str, ModelOffer]:
        """What some replica serves, by name; what was served last, while none has reported."""
        return self._offers

    def loads(self) -> Mapping[str, ModelLoad]:
        """The load of each model on the replica that has the least to do."""
        return {name: self._load(name) for name in self._offers}

    def failures(self) -> Mapping[str, str]:
        """Why models that are to be served are not on some replica, by name."""
        return {name: why for status in reversed(self._recent()) for name, why in status.failures.items()}

    async def start(self) -> None:
        """Connect; returns as soon as one replica has reported."""
        self._polling = asyncio.create_task(self._poll())
        await self._reported.wait()

    def begin_drain(self) -> None:
        """Nothing to do: Ray has stopped sending requests here already, and replicas serve other ingresses."""

    async def close(self, timeout_s: float) -> bool:
        """Disconnect."""
        if self._polling is not None:
            self._polling.cancel()
        return True

    async def refresh(self) -> None:
        """Ask one replica for its status; one that does not answer in time is left to the next request."""
        try:
            async with asyncio.timeout(_STATUS_S):
                replica, reported = await self._handle.status.remote()
        except self._silent:
            return
        status = decode_for_frontend(reported)
        if not isinstance(status, Status):
            raise TypeError(f"a replica sent {type(status).__name__} instead of its status")
        self._statuses[replica] = self._clock(), status
        self._update()
        self._reported.set()

    @contextmanager
    def reserve(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None, in_flight: int
    ) -> Iterator[RayReservation]:
        """Accept a request; see :meth:`prunepool.transport.client.CoreClient.reserve`."""
        if model not in self._offers:
            raise not_served(model, self._offers)
        load = self._load(model)
        if load.missing is not None:
            raise EngineUnavailable(load.missing, retry_after=_RETRY_S)
        self._limits.check(in_flight, load.drain_s)
        yield RayReservation(self, model, generation)

    async def submit(self, model: str, generation: str, request: Request) -> Result:
        """Have a replica answer a request. While models change, replicas serve different ones: it tries again.

        Args:
            model: its name.
            generation: the one that the request was prepared for.
            request: counts the devices it was on in `attempts`.

        Raises:
            ModelReplaced: no replica that reported serves this generation.
            PrunepoolError: why a replica cannot answer, or that there is none.
        """
        message = submit_of(next(self._sequence), model, generation, request, None)
        data = request.pixels.tobytes()
        until = self._clock() + _CHANGE_S
        while True:
            try:
                return await self._try_replicas(message, data, request)
            except (ModelNotFound, ModelReplaced):
                offer = self._offers.get(model)
                if offer is None or self._clock() > until:
                    raise
                if offer.generation != generation:
                    detail = f"{model} has been replaced since its options were read"
                    raise ModelReplaced(detail, retry_after=0.1) from None
                await asyncio.sleep(_PAUSE_S)

    async def _try_replicas(self, message: Submit, data: bytes, request: Request) -> Result:
        """Call one replica, and another one if it dies."""
        for died in (False, True):
            response = self._handle.submit.remote(encode(relative(message, self._clock())), data)
            try:
                async with asyncio.timeout(self._wait_s):
                    replica, replied = await response
                break
            except self._lost:
                request.attempts += 1
                if died:
                    detail = "two engine replicas died while they had this image"
                    raise EngineUnavailable(detail, retry_after=_RETRY_S) from None
            except TimeoutError:
                response.cancel()
                detail = f"no engine replica has answered for {self._wait_s:g} s"
                raise EngineUnavailable(detail, retry_after=_RETRY_S) from None
            except asyncio.CancelledError:
                response.cancel()
                raise
        reply = decode_for_frontend(replied)
        if isinstance(reply, Completed):
            self._update_load(replica, reply)
            return reply.result
        if not isinstance(reply, Failed):
            raise TypeError(f"a replica sent {type(reply).__name__} instead of a result")
        request.attempts = reply.attempts
        error = error_of(reply.error)
        if isinstance(error, (ModelNotFound, ModelReplaced)):
            self._forget_offer(replica, message)
        raise error

    async def _poll(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:  # a bad report must not end the polling
                _log.exception("an engine replica could not be asked for its status")
            self._update()
            await asyncio.sleep(STATUS_EVERY_S)

    def _load(self, model: str) -> ModelLoad:
        loads = [status.loads[model] for status in self._recent() if model in status.loads]
        if not loads:
            return ModelLoad(f"{model}: no engine replica has answered for {SILENCE_S:g} s", 0.0, 0.0)
        return min(loads, key=lambda load: (load.missing is not None, load.drain_s))

    def _recent(self) -> list[Status]:
        """The last status of each replica that is not silent, the latest first."""
        since = self._clock() - SILENCE_S
        latest = sorted(self._statuses.values(), key=lambda one: one[0], reverse=True)
        return [status for at, status in latest if at >= since]

    def _update(self) -> None:
        since = self._clock() - SILENCE_S
        self._statuses = {name: last for name, last in self._statuses.items() if last[0] >= since}
        if recent := self._recent():
            self._default = recent[0].default
            agreed = self._agreed(offer for status in recent for offer in status.offers or ())
            loaded = {name for status in recent for name in status.loads}
            # One that every replica has refused since it reported: which generation they serve is not known yet.
            kept = {name: offer for name, offer in self._offers.items() if name in loaded - agreed.keys()}
            self._offers = {**agreed, **kept}

    def _forget_offer(self, replica: str, refused: Submit) -> None:
        """A replica refused what it had said it serves: that is out of date."""
        if replica in self._statuses:
            at, status = self._statuses[replica]
            left = tuple(
                offer
                for offer in status.offers or ()
                if (offer.info.name, offer.generation) != (refused.model, refused.generation)
            )
            self._statuses[replica] = at, msgspec.structs.replace(status, offers=left)
            self._update()

    def _agreed(self, offers: Iterable[ModelOffer]) -> dict[str, ModelOffer]:
        """By model, the generation that most replicas serve; where as many serve another, the one before.

        While replicas are replaced one after the other, it changes once: each change has requests prepared anew.
        """
        generations: defaultdict[str, dict[str, ModelOffer]] = defaultdict(dict)
        served: Counter[tuple[str, str]] = Counter()
        for offer in offers:
            generations[offer.info.name][offer.generation] = offer
            served[offer.info.name, offer.generation] += 1
        before = {(name, offer.generation) for name, offer in self._offers.items()}
        return {
            name: max(
                known.values(), key=lambda o: (served[name, o.generation], (name, o.generation) in before)
            )
            for name, known in generations.items()
        }

    def _update_load(self, replica: str, reply: Completed) -> None:
        """Take the load of a replica from a result that it sent."""
        if replica not in self._statuses:
            return
        _, status = self._statuses[replica]
        load = status.loads.get(reply.model)
        if load is not None:
            status.loads[reply.model] = msgspec.structs.replace(load, drain_s=reply.drain_s)
            self._statuses[replica] = self._clock(), status


class RayReservation:
    """A request that an ingress has accepted.

    Args:
        client: has replicas answer it.
        model: its name.
        generation: the one that the request is prepared for.
    """

    def __init__(self, client: RayCoreClient, model: str, generation: str) -> None:
        self._client = client
        self._model = model
        self._generation = generation

    async def submit(self, request: Request) -> Result:
        """Answer it; see :meth:`prunepool.transport.client.Reservation.submit`."""
        return await self._client.submit(self._model, self._generation, request)


def relative(message: Submit, now: float) -> Submit:
    """A request with its times as seconds from now: clocks of two machines have nothing in common."""
    deadline = None if message.deadline is None else message.deadline - now
    return msgspec.structs.replace(message, arrival=message.arrival - now, deadline=deadline)


def absolute(message: Submit, now: float) -> Submit:
    """A request with times that :func:`relative` made, on the clock of this machine."""
    deadline = None if message.deadline is None else message.deadline + now
    return msgspec.structs.replace(message, arrival=message.arrival + now, deadline=deadline)
