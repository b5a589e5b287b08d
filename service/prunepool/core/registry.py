"""The models that a core serves, each with its scheduler: loaded, replaced and unloaded under traffic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from prunepool.core.escalation import Escalation
from prunepool.core.scheduler import Scheduler
from prunepool.core.served_model import ServedModel
from prunepool.core.shadow import Shadow
from prunepool.core.types import Request, Result
from prunepool.errors import Draining, ModelNotFound, RequestError, why_of

log = logging.getLogger(__name__)


class ModelEntry(NamedTuple):
    """A model and what answers for it.

    Attributes:
        model: what is served.
        scheduler: answers.
        escalation: runs unsure answers again, if wanted.
        shadow: compares a sample of the answers with the dense model's, if wanted.
    """

    model: ServedModel
    scheduler: Scheduler
    escalation: Escalation | None = None
    shadow: Shadow | None = None

    async def second_pass(self, request: Request, result: Result) -> Result:
        """Escalate an unsure result to a dense run, then offer the result to the shadow sample."""
        if self.escalation is not None:
            result = await self.escalation.settle(request, result)
        if self.shadow is not None:
            self.shadow.offer(request.pixels, result)
        return result


class ModelRegistry:
    """What is served.

    A change has two steps, so that several cores can make it together or not at all: :meth:`prepare` warms a model
    up beside those that are served, :meth:`commit` puts it in the place of the one of its name.

    Args:
        models: what is served from the start, the default first; at least one.
        make: makes the entry of a model, its gauges active or not.
        unload_timeout_s: how long a model that leaves may take to answer what it had accepted.

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
        self._entries = {model.name: make(model, True) for model in models}
        self._prepared: dict[str, ModelEntry] = {}
        self._failures: dict[str, str] = {}
        #: What a failed model has in the metrics, until it is served or unloaded.
        self._failed: dict[str, ModelEntry] = {}
        #: Schedulers of replaced, unloaded and aborted models that are still draining.
        self._leaving: set[Scheduler] = set()
        self._draining = False
        self.default = next(iter(self._entries))

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model that is served."""
        return tuple(self._entries.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._entries)

    @property
    def failures(self) -> Mapping[str, str]:
        """Why models that are to be served are not, by name."""
        return dict(self._failures)

    def find(self, name: str) -> ModelEntry:
        """One model.

        Raises:
            ModelNotFound: none of that name is served.
        """
        if name not in self._entries:
            raise not_served(name, self._entries)
        return self._entries[name]

    def has(self, model: ServedModel) -> bool:
        """Whether this very generation of a model is served."""
        return model.name in self._entries and self._entries[model.name].model.generation == model.generation

    async def start(self, *, needs_default: bool = True) -> None:
        """Start all, one after the other; returns when each is warm or has failed.

        Args:
            needs_default: whether it is an error if the default model does not get warm; that none does always is.

        Raises:
            Exception: whatever kept the model that is needed from getting warm; the others are stopped.
        """
        errors: list[Exception] = []
        try:
            for entry in self.entries:
                try:
                    await entry.scheduler.start()
                except Exception as error:
                    errors.append(error)
                    if needs_default and entry.model.name == self.default:
                        raise
                    await self._fail(entry, error)
            if not self._entries:
                raise errors[0]
        except BaseException:
            await self.close(0.0)
            raise

    async def _fail(self, entry: ModelEntry, error: Exception) -> None:
        name = entry.model.name
        del self._entries[name]
        why = why_of(error)
        log.error("%s cannot be served: %s", name, why)
        self.note_failure(name, why)
        self._failed[name] = entry
        await self._stop(entry.scheduler, 0.0)

    def note_failure(self, name: str, why: str) -> None:
        """Say of a model that is to be served why it is not; nothing is noted of one that is."""
        if name not in self._entries:
            self._failures[name] = why

    def _forget_failure(self, name: str) -> None:
        self._failures.pop(name, None)
        if (failed := self._failed.pop(name, None)) is not None:
            failed.scheduler.gauges.remove()

    async def prepare(self, model: ServedModel) -> None:
        """Warm a model up beside those that are served.

        Raises:
            Draining: the server is stopping.
            Exception: whatever kept it from getting warm; nothing is left of it then.
        """
        await self.abort(model.name)
        entry = self._prepared[model.name] = self._make(model, False)
        try:
            await entry.scheduler.start()
            if self._draining:
                raise Draining("the server is stopping and loads no more models", retry_after=1.0)
        except BaseException:
            await self.abort(model.name)
            raise

    async def commit(self, name: str) -> None:
        """Serve a prepared model; one of its name answers what it had accepted, and is stopped.

        Raises:
            ModelNotFound: no model of that name is prepared.
        """
        entry = self._prepared.pop(name, None)
        if entry is None:
            raise ModelNotFound(f"no model named {name[:100]!r} is prepared to be served")
        before = self._entries.get(name)
        self._forget_failure(name)
        self._entries[name] = entry
        if before is not None:
            before.scheduler.gauges.deactivate()
        entry.scheduler.gauges.activate()
        if before is not None:
            before.scheduler.retire()
            await self._stop(before.scheduler, self._unload_timeout_s)

    async def abort(self, name: str) -> None:
        """Forget a prepared model, if there is one."""
        entry = self._prepared.pop(name, None)
        if entry is not None:
            await self._stop(entry.scheduler, 0.0)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; it answers what it had accepted, and is stopped. One that failed is forgotten.

        Raises:
            ModelNotFound: none of that name is served.
            RequestError: it is the default model.
        """
        if name in self._failures:
            self._forget_failure(name)
            return
        scheduler = self.find(name).scheduler
        if name == self.default:
            raise RequestError(f"{name} answers requests that name no model, so it cannot be unloaded")
        del self._entries[name]
        scheduler.gauges.remove()
        scheduler.retire()
        await self._stop(scheduler, self._unload_timeout_s)

    def set_default(self, name: str) -> None:
        """Have a model answer requests that name none; one that could not be loaded answers them later.

        Raises:
            ModelNotFound: none of that name is served or failed.
        """
        if name not in self._failures:
            self.find(name)
        self.default = name

    def begin_drain(self) -> None:
        """Refuse new requests; those that were accepted are still answered."""
        self._draining = True
        for scheduler in self._schedulers():
            scheduler.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered."""
        self.begin_drain()
        return all(await asyncio.gather(*(one.close(timeout_s) for one in self._schedulers())))

    async def _stop(self, scheduler: Scheduler, timeout_s: float) -> None:
        self._leaving.add(scheduler)
        try:
            await scheduler.close(timeout_s)
        finally:
            self._leaving.discard(scheduler)

    def _schedulers(self) -> list[Scheduler]:
        entries = (*self.entries, *self._prepared.values())
        return [*(entry.scheduler for entry in entries), *self._leaving]


def not_served(name: str, served: Iterable[str]) -> ModelNotFound:
    """The error for a name that no served model has."""
    return ModelNotFound(f"no model named {name[:100]!r} is served; there are: {', '.join(served)}")
