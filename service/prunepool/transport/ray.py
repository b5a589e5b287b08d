"""All engine replicas, as an ingress sees them through Ray's handle; Ray chooses which one is asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from prunepool.core.types import Pixels
from prunepool.errors import EngineUnavailable, ModelNotFound
from prunepool.serving.remote_engine import RemoteEngine
from prunepool.serving.types import Classification, Image, Inference, ModelInfo, Options
from prunepool.transport.messages import Answer, Ask, Offer, State, decode_for_frontend, encode, error_of

#: Seconds between two questions how a replica is, and after which one that was not heard counts as gone.
LOOK_EVERY_S, SILENCE_S = 0.5, 5.0
#: How long one look may take; a start may take longer.
_LOOK_S = 2.0
#: How long a request looks for a replica that serves its model, while models change.
_CHANGE_S = 20.0
_PAUSE_S = 0.05
_RETRY_S = 5.0
_log = structlog.stdlib.get_logger("prunepool.ray")
_Answer = TypeVar("_Answer")


class Replicas:
    """What is known of them; all calls come from the event loop.

    Args:
        handle: Ray's, to :class:`prunepool.ray_app.engine.EngineReplica`.
        lost: what Ray raises where a replica died with a question.
        wait_s: how long a question may take, waiting for a replica included.
        clock: seconds, monotonic.

    Attributes:
        default: name of the model that answers when a request names none.
        offers: what some replica serves, by model.
    """

    def __init__(
        self, handle: Any, lost: tuple[type[Exception], ...], wait_s: float, clock: Callable[[], float]
    ) -> None:
        self._handle = handle
        self._lost = lost
        self._silent: tuple[type[Exception], ...] = (TimeoutError, *lost)
        self._wait_s = wait_s
        self._clock = clock
        self._numbers = itertools.count()
        self._heard: dict[str, tuple[float, State]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._found = asyncio.Event()
        self.default = ""
        self.offers: dict[str, Offer] = {}

    async def start(self) -> None:
        """Returns when a replica has said what it serves."""
        self._looking = asyncio.create_task(self._keep_looking())
        await self._found.wait()

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def look(self) -> None:
        """Ask one replica how it is; it may not be there to answer."""
        try:
            async with asyncio.timeout(_LOOK_S):
                replica, said = await self._handle.state.remote()
        except self._silent:
            return
        state = decode_for_frontend(said)
        assert isinstance(state, State)
        self._heard[replica] = self._clock(), state
        self._learn()
        self._found.set()

    def find(self, model: str) -> Offer:
        """A model that is served.

        Raises:
            ModelNotFound: none of that name is.
        """
        if model not in self.offers:
            names = ", ".join(self.offers)
            raise ModelNotFound(f"no model named {model[:100]!r} is served; there are: {names}")
        return self.offers[model]

    def info(self, model: str) -> ModelInfo:
        """What callers may know of a model.

        Raises:
            ModelNotFound: none of that name is served.
        """
        return replace(self.find(model).info, ready=self.missing(model) is None)

    def missing(self, model: str) -> str | None:
        """Why no replica takes images of a model; None if one does."""
        loads = [state.loads[model] for state in self._recent() if model in state.loads]
        if any(load.missing is None for load in loads):
            return None
        return (
            str(loads[0].missing) if loads else f"{model}: no engine replica has answered for {SILENCE_S:g} s"
        )

    def drain_s(self, model: str) -> float:
        """Predicted seconds until the replica with the least has done all that it has.

        Raises:
            EngineUnavailable: no replica takes images of the model now.
        """
        if (why := self.missing(model)) is not None:
            raise EngineUnavailable(why, retry_after=_RETRY_S)
        return min(state.loads[model].drain_s for state in self._recent() if model in state.loads)

    async def ask(
        self, make: Callable[[int], Ask], model: str, pixels: Pixels | None, at_engine: Callable[[bool], None]
    ) -> Inference:
        """The answer of a replica; of another one, if it dies.

        Args:
            make: makes the question, from its number.
            model: the model that is asked.
            pixels: of the image.
            at_engine: told whenever a replica has the question, or has it no longer because it died.

        Raises:
            PrunepoolError: what a replica says instead of answering, or that there is none.
        """
        assert pixels is not None, "there is no memory that both could see"
        data = pixels.tobytes()
        ask = make(next(self._numbers))
        for died in (False, True):
            # Clocks of two machines have nothing in common: what travels is how long ago the image came.
            aged = msgspec.structs.replace(ask, arrival=self._clock() - ask.arrival)
            at_engine(True)
            response = self._handle.answer.remote(encode(aged), data)
            try:
                async with asyncio.timeout(self._wait_s):
                    replica, said = await response
                break
            except self._lost:
                at_engine(False)
                if died:
                    detail = "two engine replicas died while they had this image"
                    raise EngineUnavailable(detail, retry_after=_RETRY_S) from None
            except TimeoutError:
                response.cancel()
                at_engine(False)
                detail = f"no engine replica has answered for {self._wait_s:g} s"
                raise EngineUnavailable(detail, retry_after=_RETRY_S) from None
            except asyncio.CancelledError:
                response.cancel()
                raise
        answer = decode_for_frontend(said)
        if isinstance(answer, Answer):
            self._note(replica, answer)
            return answer.inference
        assert not isinstance(answer, State)
        raise error_of(answer.error)

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # one bad look must not be the last
                _log.exception("an engine replica could not be asked how it is")
            self._learn()
            await asyncio.sleep(LOOK_EVERY_S)

    def _recent(self) -> list[State]:
        """What those replicas said last that were heard of late, the latest first."""
        since = self._clock() - SILENCE_S
        heard = sorted(self._heard.values(), key=lambda one: one[0], reverse=True)
        return [state for at, state in heard if at >= since]

    def _learn(self) -> None:
        since = self._clock() - SILENCE_S
        self._heard = {name: said for name, said in self._heard.items() if said[0] >= since}
        if recent := self._recent():
            self.default = recent[0].default
            self.offers = {o.info.name: o for state in reversed(recent) for o in state.offers or ()}

    def _note(self, replica: str, answer: Answer) -> None:
        """An answer says as well how much is ahead where it came from."""
        if replica not in self._heard:
            return
        _, state = self._heard[replica]
        model = answer.inference.model
        load = state.loads.get(model)
        if load is not None:
            state.loads[model] = msgspec.structs.replace(load, drain_s=answer.drain_s)
            self._heard[replica] = self._clock(), state


class ClusterEngine(RemoteEngine):
    """The `Engine` of an ingress. While models change, replicas differ in what they serve: it goes on looking.

    Each look that finds the wrong replica counts there as `model_not_found`.
    """

    async def classify(self, image: bytes, options: Options) -> Classification:
        """Classify one encoded image."""
        return await self._found(options, partial(super().classify, image, options))

    async def infer(self, image: Image, options: Options) -> Inference:
        """The logits of one image, encoded or normalised."""
        return await self._found(options, partial(super().infer, image, options))

    async def _found(self, options: Options, attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
        until = self._clock() + _CHANGE_S
        while True:
            try:
                return await attempt()
            except ModelNotFound:
                gone = options.model is not None and options.model not in self._engines.offers
                if gone or self._clock() > until:
                    raise
                await asyncio.sleep(_PAUSE_S)
