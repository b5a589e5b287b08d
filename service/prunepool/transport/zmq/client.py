"""All engine processes, as a front end sees them: what they serve, which one gets a request, what if it dies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from prunepool.core.registry import not_served
from prunepool.core.types import RatioSpec, Request, Result
from prunepool.errors import EngineUnavailable, ModelNotFound, ModelReplaced
from prunepool.metrics import Metrics
from prunepool.transport.client import ModelLoad, ModelOffer
from prunepool.transport.early_refusal import FrontendLimits
from prunepool.transport.messages import submit_of
from prunepool.transport.zmq.balancer import Candidate, least_loaded
from prunepool.transport.zmq.connection import EngineConnection
from prunepool.transport.zmq.failures import Disconnected, RequestFailed, Unsent
from prunepool.transport.zmq.shared_memory import Arena

#: How long a request waits for another engine after its own died.
_GRACE_PERIOD_S = 1.0
#: Assumed restart time until one has been measured: starting, loading and warming up.
_START_S = 5.0
_LEAST_RETRY_S = 0.1
#: An image that so many devices or engines were lost with is given up.
_MOST_ATTEMPTS = 2


class ZmqCoreClient:
    """The `CoreClient` of a front end; all calls come from the event loop.

    Args:
        connections: to the engine processes; they call :meth:`changed`.
        arena: memory that the engines can read.
        limits: of this front end.
        metrics: the service's series.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        connections: Iterable[EngineConnection],
        arena: Arena,
        limits: FrontendLimits,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._connections = tuple(connections)
        self._arena = arena
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._changed = asyncio.Event()
        self._sequence = itertools.count(1)  # 0 stands for none
        self._turns = itertools.count()
        self._started = False
        self._outage: float | None = None
        self._start_s = _START_S
        self._default = ""
        self._offers: dict[str, ModelOffer] = {}

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._default

    def offers(self) -> Mapping[str, ModelOffer]:
        """What some engine serves, by name; what was served last, while none is connected."""
        return self._offers

    def loads(self) -> Mapping[str, ModelLoad]:
        """The load of each model on the engine that would be asked next."""
        return {name: self._load(offer) for name, offer in self._offers.items()}

    def failures(self) -> Mapping[str, str]:
        """Why models that are to be served are not on some engine, by name."""
        there = [one.status for one in self._connections if one.status is not None]
        return {name: why for status in reversed(there) for name, why in status.failures.items()}

    def changed(self) -> None:
        """What is known of an engine has changed; for the connections."""
        there = [one for one in self._connections if one.status is not None]
        if there:
            assert there[0].status is not None
            self._default = there[0].status.default
            self._offers = {o.info.name: o for one in reversed(there) for o in one.offers}
            for name in self._offers:
                # Creates the series, at 0, for models that no engine reports.
                self._metrics.engine_up.labels(name)
        now = self._clock()
        if not there and self._outage is None and self._started:
            self._outage = now
        elif there and self._outage is not None:
            self._start_s = now - self._outage
            self._outage = None
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._ask_back()

    def _ask_back(self) -> None:
        """Ask engines for what they cannot compute now, because a device has failed, and another engine can."""
        for number, one in enumerate(self._connections):
            loads = {} if one.status is None else one.status.loads
            for model in (name for name, load in loads.items() if load.missing is not None):
                one.ask_back(model, partial(self._is_served_without, number, model))

    def _is_served_without(self, number: int, model: str, generation: str) -> bool:
        try:
            return self._best(model, generation, without={number}) is not None
        except (ModelNotFound, ModelReplaced):
            return False

    async def start(self) -> None:
        """Connect; returns as soon as one engine has reported, and learns of the others later."""
        for one in self._connections:
            one.open()
        while not self._offers:
            await self._changed.wait()
        self._started = True

    async def refresh(self) -> None:
        """Learn what all engines serve now."""
        await asyncio.gather(*(one.refresh() for one in self._connections))

    def begin_drain(self) -> None:
        """Does nothing: other front ends still use the engines."""

    async def close(self, timeout_s: float) -> bool:
        """Disconnect; requests that are still pending are lost."""
        for one in self._connections:
            one.close()
        return True

    @contextmanager
    def reserve(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None, in_flight: int
    ) -> Iterator[ZmqReservation]:
        """Accept a request; see :meth:`prunepool.transport.client.CoreClient.reserve`."""
        chosen = self._best(model, generation)
        if chosen is None:
            raise self._unavailable(model)
        self._limits.check(in_flight, chosen.predicted_s)
        yield ZmqReservation(self, self._arena, model, generation)

    async def submit(
        self, model: str, generation: str, request: Request, slot: int | None, data: bytes | None
    ) -> Result:
        """The result of the engine that is predicted to be free first; of another one, if it dies.

        Args:
            model: its name.
            generation: the one that the request was prepared for.
            request: counts the devices it was on in `attempts`.
            slot: where its pixels are in shared memory, or None.
            data: its pixels where they are not.

        Raises:
            PrunepoolError: what an engine says instead of answering, or that there is none.
        """
        wait_until: float | None = None
        refused_by: set[int] = set()
        while True:
            chosen = self._best(model, generation, next(self._turns), refused_by)
            if chosen is None:
                await self._wait_for_an_engine(model, wait_until)
                refused_by.clear()
                continue
            connection = self._connections[chosen.number]
            try:
                message = submit_of(next(self._sequence), model, generation, request, slot)
                return await connection.submit(message, data)
            except RequestFailed as failed:
                request.attempts = failed.attempts
                if isinstance(failed.error, ModelReplaced):
                    await connection.refresh()  # so that the next attempt is for what it serves now
                elif failed.given_back:
                    wait_until = wait_until or self._clock() + _GRACE_PERIOD_S
                    continue
                elif isinstance(failed.error, EngineUnavailable) and failed.attempts < _MOST_ATTEMPTS:
                    # Its device has just failed and its status has not arrived.
                    refused_by.add(chosen.number)
                    other = self._best(model, generation, 0, refused_by)
                    if other is not None or wait_until is not None:
                        continue
                raise failed.error from None
            except Unsent:
                wait_until = wait_until or self._clock() + _GRACE_PERIOD_S
            except Disconnected as lost:
                request.attempts += lost.on_device
                if request.attempts >= _MOST_ATTEMPTS:
                    detail = "two engines died while they had this image"
                    raise EngineUnavailable(detail, retry_after=self._retry_after()) from None
                wait_until = self._clock() + _GRACE_PERIOD_S

    def _best(
        self, model: str, generation: str, turn: int = 0, without: Collection[int] = ()
    ) -> Candidate | None:
        """The engine that takes the next request for a generation of a model; None while none takes any.

        Args:
            model: its name.
            generation: that it serves.
            turn: counts up from one request to the next.
            without: numbers of engines that have refused the request.

        Raises:
            ModelNotFound: no engine serves a model of that name.
            ModelReplaced: the engines that are connected serve other generations only.
        """
        now = self._clock()
        candidates, other_generation_served = [], False
        for number, one in enumerate(self._connections):
            load = None if one.status is None else one.status.loads.get(model)
            if load is None:
                continue
            if not any(o.info.name == model and o.generation == generation for o in one.offers):
                other_generation_served = True
            elif load.missing is None and number not in without:
                candidates.append(Candidate(number, one.backlogs[model].predicted_s(now, load.image_s)))
        if model not in self._offers:
            raise not_served(model, self._offers)
        if not candidates and other_generation_served and self._offers[model].generation != generation:
            raise ModelReplaced(f"{model} has been replaced since its options were read", retry_after=0.1)
        return least_loaded(candidates, turn)

    def _load(self, offer: ModelOffer) -> ModelLoad:
        model = offer.info.name
        loads = [
            one.status.loads[model]
            for one in self._connections
            if one.status is not None and model in one.status.loads
        ]
        if not loads:
            return ModelLoad(f"{model}: the engine is being restarted", 0.0, 0.0)
        return min(loads, key=lambda load: (load.missing is not None, load.drain_s))

    async def _wait_for_an_engine(self, model: str, until: float | None) -> None:
        """Wait until something changes; a request that no engine has had yet is refused at once."""
        left = 0.0 if until is None else until - self._clock()
        if left <= 0:
            raise self._unavailable(model)
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            raise self._unavailable(model) from None

    def _unavailable(self, model: str) -> EngineUnavailable:
        offer = self._offers.get(model)
        why = None if offer is None else self._load(offer).missing
        return EngineUnavailable(
            why or f"{model}: the engine is being restarted", retry_after=self._retry_after()
        )

    def _retry_after(self) -> float:
        """Seconds until an engine should be back, from how long that took the last time."""
        gone_s = 0.0 if self._outage is None else self._clock() - self._outage
        return max(_LEAST_RETRY_S, self._start_s - gone_s)


class ZmqReservation:
    """A request that a front end has accepted.

    Args:
        client: has engines answer it.
        arena: memory that they can read.
        model: its name.
        generation: the one that the request is prepared for.
    """

    def __init__(self, client: ZmqCoreClient, arena: Arena, model: str, generation: str) -> None:
        self._client = client
        self._arena = arena
        self._model = model
        self._generation = generation

    async def submit(self, request: Request) -> Result:
        """Answer it; see :meth:`prunepool.transport.client.Reservation.submit`."""
        with self._arena.holding(request.pixels) as slot:
            data = None if slot is not None else request.pixels.tobytes()
            return await self._client.submit(self._model, self._generation, request, slot, data)
