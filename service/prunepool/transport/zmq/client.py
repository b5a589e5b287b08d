"""All engine processes, as a front end sees them: what they serve, which one to ask, and what if it dies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace

from prunepool.core.types import Pixels
from prunepool.errors import EngineUnavailable, ModelNotFound
from prunepool.metrics import Metrics
from prunepool.serving.types import Inference, ModelInfo
from prunepool.transport.messages import Ask, Offer
from prunepool.transport.zmq.balancer import Choice, best
from prunepool.transport.zmq.connection import Disconnected, Link

#: How long an image waits for an engine that works, after the one that had it died.
PATIENCE_S = 1.0
#: Until one was seen to come back: starting, loading and warming up.
_START_S = 5.0
_LEAST_RETRY_S = 0.1


class Engines:
    """What is known of them; all calls come from the event loop.

    Args:
        links: to the engine processes; they tell :meth:`changed`.
        metrics: the service's series.
        clock: seconds, monotonic.

    Attributes:
        default: name of the model that answers when a request names none.
        offers: what some engine serves, by model.
    """

    def __init__(self, links: Iterable[Link], metrics: Metrics, clock: Callable[[], float]) -> None:
        self._links = tuple(links)
        self._metrics = metrics
        self._clock = clock
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)  # 0 stands for none
        self._turns = itertools.count()
        self._started = False
        self._outage: float | None = None
        self._start_s = _START_S
        self.default = ""
        self.offers: dict[str, Offer] = {}

    def changed(self) -> None:
        """What is known of an engine has changed; for the links."""
        there = [link for link in self._links if link.state is not None]
        if there:
            assert there[0].state is not None
            self.default = there[0].state.default
            self.offers = {offer.info.name: offer for link in reversed(there) for offer in link.offers}
            for name in self.offers:
                self._metrics.engine_up.labels(name)  # it is there, with 0, where no engine says so
        now = self._clock()
        if not there and self._outage is None and self._started:
            self._outage = now
        elif there and self._outage is not None:
            self._start_s = now - self._outage
            self._outage = None
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def start(self) -> None:
        """Connect; returns when every engine has said how it is."""
        for link in self._links:
            link.open()
        while any(link.state is None for link in self._links):
            await self._changed.wait()
        self._started = True

    async def look(self) -> None:
        """Learn what all engines serve now."""
        await asyncio.gather(*(link.look() for link in self._links))

    def close(self) -> None:
        """Disconnect."""
        for link in self._links:
            link.close()

    def find(self, model: str) -> Offer:
        """A model that is served.

        Raises:
            ModelNotFound: none of that name is.
        """
        if model not in self.offers:
            raise ModelNotFound(
                f"no model named {model[:100]!r} is served; there are: {', '.join(self.offers)}"
            )
        return self.offers[model]

    def info(self, model: str) -> ModelInfo:
        """What callers may know of a model.

        Raises:
            ModelNotFound: none of that name is served.
        """
        return replace(self.find(model).info, ready=self.missing(model) is None)

    def missing(self, model: str) -> str | None:
        """Why no engine takes images of a model; None if one does."""
        loads = [link.state.loads[model] for link in self._links if link.state and model in link.state.loads]
        if any(load.missing is None for load in loads):
            return None
        return str(loads[0].missing) if loads else f"{model}: the engine is being restarted"

    def drain_s(self, model: str) -> float:
        """Predicted seconds until the engine that would be asked has done all that it has.

        Raises:
            EngineUnavailable: no engine takes images of the model now.
        """
        chosen = self._best(model)
        if chosen is None:
            raise self._unavailable(model)
        return chosen.predicted_s

    async def ask(
        self, make: Callable[[int], Ask], model: str, pixels: Pixels | None, at_engine: Callable[[bool], None]
    ) -> Inference:
        """The answer of the engine that is predicted to be free first; of another one, if it dies.

        Args:
            make: makes the question, from its number.
            model: the model that is asked.
            pixels: what is not in shared memory.
            at_engine: told whenever an engine has the question, or has it no longer because it died.

        Raises:
            PrunepoolError: what an engine says instead of answering, or that there is none.
        """
        data = None if pixels is None else pixels.tobytes()
        wait_until: float | None = None
        while True:
            link = self._choose(model)
            if link is None:
                await self._wait_for_an_engine(model, wait_until)
                continue
            at_engine(True)
            try:
                return await link.ask(make(next(self._numbers)), data)
            except Disconnected:
                at_engine(False)
                if wait_until is not None:
                    detail = "two engines died while they had this image"
                    raise EngineUnavailable(detail, retry_after=self._retry_after()) from None
                wait_until = self._clock() + PATIENCE_S

    def _choose(self, model: str) -> Link | None:
        """The engine for the next image; none while no engine takes any."""
        chosen = self._best(model, next(self._turns))
        return None if chosen is None else self._links[chosen.number]

    def _best(self, model: str, turn: int = 0) -> Choice | None:
        now = self._clock()
        choices = [
            Choice(number, link.backlogs[model].predicted_s(now, load.image_s))
            for number, link in enumerate(self._links)
            if link.state is not None
            if (load := link.state.loads.get(model)) is not None and load.missing is None
        ]
        return best(choices, turn)

    async def _wait_for_an_engine(self, model: str, until: float | None) -> None:
        """Until something changes; at once too late for an image that no engine has had yet."""
        left = 0.0 if until is None else until - self._clock()
        if left <= 0:
            raise self._unavailable(model)
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            raise self._unavailable(model) from None

    def _unavailable(self, model: str) -> EngineUnavailable:
        why = self.missing(model) or f"{model}: the engine is being restarted"
        return EngineUnavailable(why, retry_after=self._retry_after())

    def _retry_after(self) -> float:
        """Seconds until an engine should be back, from how long that took the last time."""
        gone_s = 0.0 if self._outage is None else self._clock() - self._outage
        return max(_LEAST_RETRY_S, self._start_s - gone_s)
