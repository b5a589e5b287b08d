"""The models that are served now, each with its scheduler: loaded, replaced and unloaded under traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from prunepool.core.scheduler import Scheduler
from prunepool.core.types import Request, Result
from prunepool.errors import Draining, ModelNotFound, RequestError
from prunepool.serving.escalation import Escalation
from prunepool.serving.served_model import ServedModel
from prunepool.serving.shadow import Shadow


class ModelEntry(NamedTuple):
    """A model and what answers for it.

    Attributes:
        model: what is served.
        scheduler: answers.
        escalation: takes second looks at unsure answers, if wanted.
        shadow: compares a sample of the answers with the dense model's, if wanted.
    """

    model: ServedModel
    scheduler: Scheduler
    escalation: Escalation | None = None
    shadow: Shadow | None = None

    async def second_look(self, request: Request, done: Result) -> Result:
        """The answer, or the unreduced model's where that is needed; a sample of the others is watched."""
        if self.escalation is not None:
            done = await self.escalation.settle(request, done)
        if self.shadow is not None:
            self.shadow.offer(request.pixels, done)
        return done


class ModelRegistry:
    """What is served.

    Args:
        models: what is served from the start, the default first; at least one.
        make: makes what answers for a model, its gauges active or not.
        unload_timeout_s: how long a model that is let go may take to answer what it had accepted.

    Attributes:
        default: name of the model that answers when a request names none.
    """

    def __init__(
        self,
        models: Iterable[ServedModel],
        make: Callable[[ServedModel, bool], ModelEntry],
        unload_timeout_s: float,
    ) -> None:
        self._make = make
        self._unload_timeout_s = unload_timeout_s
        self._lines = {model.name: make(model, True) for model in models}
        #: Not served yet, or no longer: they warm up, or answer what they had accepted.
        self._aside: set[Scheduler] = set()
        self._draining = False
        self.default = next(iter(self._lines))

    @property
    def lines(self) -> tuple[ModelEntry, ...]:
        """Every model that is served."""
        return tuple(self._lines.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._lines)

    def find(self, name: str) -> ModelEntry:
        """One model.

        Raises:
            ModelNotFound: none of that name is served.
        """
        if name not in self._lines:
            raise ModelNotFound(
                f"no model named {name[:100]!r} is served; there are: {', '.join(self._lines)}"
            )
        return self._lines[name]

    def has(self, model: ServedModel) -> bool:
        """Whether this very version of a model is served."""
        return model.name in self._lines and self._lines[model.name].model.version == model.version

    async def start(self) -> None:
        """Start all, one after the other; returns when all are warm.

        Raises:
            Exception: whatever kept the first that failed from getting warm; the others are stopped.
        """
        try:
            for line in self.lines:
                await line.scheduler.start()
        except BaseException:
            await self.close(0.0)
            raise

    async def load(self, model: ServedModel) -> None:
        """Serve a model as soon as it is warm; one of its name answers until then, and is let go.

        Calls must not overlap.

        Raises:
            Draining: the server stops.
            Exception: whatever kept it from getting warm; what was served is served on.
        """
        line = self._make(model, False)
        scheduler = line.scheduler
        self._aside.add(scheduler)
        try:
            await scheduler.start()
            if self._draining:
                raise Draining("the server is stopping and loads no more models", retry_after=1.0)
        except BaseException:
            await self._let_go(scheduler, 0.0)
            raise
        before = self._lines.get(model.name)
        self._lines[model.name] = line
        self._aside.discard(scheduler)
        if before is not None:
            before.scheduler.gauges.deactivate()
        scheduler.gauges.activate()
        if before is not None:
            await self._let_go(before.scheduler, self._unload_timeout_s)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; what it had accepted is still answered, and then it is let go.

        Raises:
            ModelNotFound: none of that name is served.
            RequestError: it is the default model.
        """
        scheduler = self.find(name).scheduler
        if name == self.default:
            raise RequestError(f"{name} answers requests that name no model, so it cannot be unloaded")
        del self._lines[name]
        scheduler.gauges.remove()
        await self._let_go(scheduler, self._unload_timeout_s)

    def prefer(self, name: str) -> None:
        """Make a served model the default.

        Raises:
            ModelNotFound: none of that name is served.
        """
        self.find(name)
        self.default = name

    def begin_drain(self) -> None:
        """Refuse what comes from now on; what was accepted is still answered."""
        self._draining = True
        for scheduler in self._schedulers():
            scheduler.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered."""
        self.begin_drain()
        return all(await asyncio.gather(*(one.close(timeout_s) for one in self._schedulers())))

    async def _let_go(self, scheduler: Scheduler, timeout_s: float) -> None:
        self._aside.add(scheduler)
        try:
            await scheduler.close(timeout_s)
        finally:
            self._aside.discard(scheduler)

    def _schedulers(self) -> list[Scheduler]:
        return [*(line.scheduler for line in self.lines), *self._aside]
