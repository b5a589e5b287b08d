"""Which models are to be served, as callers and the settings say; every engine converges to it.

It is state of the one process that starts engines. A change has two steps: every engine warms the model up beside
what it serves, and only when all have done so do they serve it. A load that fails on one engine changes none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import structlog

from prunepool.errors import EngineUnavailable, ModelNotFound, PrunepoolError, RequestError, why_of
from prunepool.server.pinned_models import NoPins, Pins
from prunepool.store import Repository

_log = structlog.stdlib.get_logger("prunepool.models")


class EngineControl(Protocol):
    """The models of one engine, in this process or in another one; calls do not overlap."""

    @property
    def up(self) -> bool:
        """Whether it is ready; an engine that is down converges when it is back."""

    async def served(self) -> Sequence[str]:
        """Names of the models that it serves."""

    async def prepare(self, reference: str) -> bool:
        """Warm a model up beside those that it serves.

        Args:
            reference: its name in the store, or its folder.

        Returns:
            Whether a commit is needed; False if this generation is served already.

        Raises:
            EngineUnavailable: the engine has ended.
            PrunepoolError: the model cannot be served.
        """

    async def commit(self, name: str) -> None:
        """Serve a prepared model."""

    async def abort(self, name: str) -> None:
        """Forget a prepared model, if there is one."""

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered."""

    async def set_default(self, name: str) -> None:
        """Have a model answer requests that name none; one that could not be loaded answers them later."""

    async def note_failure(self, name: str, why: str) -> None:
        """Say of a model that is to be served, and could not be loaded, why it is not."""


async def _nothing() -> None:
    pass


class DesiredModels:
    """The :class:`~prunepool.serving.types.ModelControl` of a server; one change at a time.

    Args:
        engines: what serves them.
        repository: what can be served.
        references: the models that the settings asked for at the start, the default first.
        on_change: awaited after each change, before it counts as done.
        pins: keeps the versions of models that are to be served, for engines that start later.

    Raises:
        ModelNotFound: one of them is not there.
        ManifestInvalid: its model.json does not say what it must.
    """

    def __init__(
        self,
        engines: Sequence[EngineControl],
        repository: Repository,
        references: Iterable[str],
        on_change: Callable[[], Awaitable[None]] = _nothing,
        pins: Pins | None = None,
    ) -> None:
        self._engines = engines
        self._pins = pins or NoPins()
        self._repository = repository
        self._configured = repository.declare(references)
        self._desired = {name: self._pinned(name) for name in self._configured}
        self._default = self._configured[0]
        self._on_change = on_change
        self._one_at_a_time = asyncio.Lock()

    @property
    def references(self) -> tuple[str, ...]:
        """What an engine that starts now is to serve, the default first."""
        others = (reference for name, reference in self._desired.items() if name != self._default)
        return (self._desired[self._default], *others)

    def names(self) -> tuple[str, ...]:
        """Names of the models that are to be served."""
        return tuple(self._desired)

    def loadable(self) -> tuple[str, ...]:
        """Names of the models that could be served."""
        return self._repository.names()

    async def load(self, name: str) -> None:
        """Serve a model, or replace it if its files have changed; returns when it answers.

        Raises:
            ModelNotFound: none of that name can be loaded.
            EngineUnavailable: no engine is there.
            PrunepoolError: it cannot be served; every engine keeps serving what it had.
        """
        async with self._one_at_a_time:
            await self._load(name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered.

        Raises:
            ModelNotFound: none of that name is served.
            RequestError: it is the default model.
            EngineUnavailable: no engine is there.
        """
        async with self._one_at_a_time:
            await self._unload(name)

    async def follow(self, references: Iterable[str]) -> None:
        """Serve what the settings ask for now.

        Models that they name for the first time are loaded, served ones whose files have changed are replaced,
        those that they named before and name no longer are unloaded. What callers loaded stays. What cannot be
        done is logged; the other models are changed all the same. Where no engine is running, the next one to
        start serves what is wanted now.

        Args:
            references: names in the store or folders, the default first.
        """
        async with self._one_at_a_time:
            try:
                asked = await asyncio.to_thread(self._repository.declare, references)
            except PrunepoolError as error:
                _log.error("settings were not followed, models are unchanged", why=error.detail)
                return
            for name in dict.fromkeys((*asked, *self._desired)):
                with _logged("load", name):
                    await self._load(name, without_engine=True)
            with _logged("set_default", asked[0]):
                await self._set_default(asked[0])
            for name in set(self._desired).intersection(self._configured).difference(asked):
                with _logged("unload", name):
                    await self._unload(name, without_engine=True)
            # What could not be unloaded is tried again the next time.
            left = [name for name in self._configured if name in self._desired and name not in asked]
            self._configured = (*asked, *left)
            _log.info("settings followed", models=", ".join(self._desired))

    async def converge(self, engine: EngineControl) -> None:
        """Bring an engine that has just started, and serves nobody yet, to what is desired now.

        What it cannot serve is logged, and the engine says so. No change comes between the return and what its
        caller does before it awaits anything.
        """
        async with self._one_at_a_time:
            await self._converge(engine)
            self._let_go_of_others(starting=1)

    def _pinned(self, name: str) -> str:
        """What engines load: a model of the store as it is now."""
        return self._pins.pin(self._repository.reference(name))

    async def _load(self, name: str, *, without_engine: bool = False) -> None:
        """Load a model; where no engine is running, only have it served by the next one, if that is allowed."""
        reference = await asyncio.to_thread(self._pinned, name)
        prepared: list[EngineControl] = []
        needs_engine = not without_engine or any(engine.up for engine in self._engines)
        try:
            for engine in self._running() if needs_engine else ():
                if await _unless_down(engine, engine.prepare(reference)):
                    prepared.append(engine)  # noqa: PERF401 - those before a failure count
            if needs_engine:
                self._running()  # raises if every engine died during prepare
        except BaseException:
            for engine in self._running(or_none=True):  # one that is being started has prepared nothing
                with suppress(PrunepoolError):
                    await engine.abort(name)
            self._let_go_of_others()
            raise
        if prepared or name not in self._desired or not needs_engine:
            self._desired[name] = reference  # otherwise all have this version, from files that were right
        await self._apply("load", name, prepared, lambda engine: engine.commit(name))
        if prepared:
            _log.info("model loaded", model=name)

    async def _unload(self, name: str, *, without_engine: bool = False) -> None:
        if name not in self._desired:
            raise ModelNotFound(
                f"no model named {name[:100]!r} is served; there are: {', '.join(self._desired)}"
            )
        if name == self._default:
            raise RequestError(f"{name} answers requests that name no model, so it cannot be unloaded")
        engines = self._running(or_none=without_engine)
        del self._desired[name]
        await self._apply("unload", name, engines, lambda engine: engine.unload(name))
        _log.info("model unloaded", model=name)

    async def _set_default(self, name: str) -> None:
        if name not in self._desired:
            raise ModelNotFound(f"{name} is not served")
        engines = self._running(or_none=True)
        self._default = name
        await self._apply("set_default", name, engines, lambda engine: engine.set_default(name))

    async def _apply(
        self,
        action: str,
        name: str,
        engines: Sequence[EngineControl],
        change: Callable[[EngineControl], Awaitable[None]],
    ) -> None:
        """Make a change that is desired already on all engines; one that cannot make it converges."""
        failures = await asyncio.gather(*(change(engine) for engine in engines), return_exceptions=True)
        for engine, failure in zip(engines, failures, strict=True):
            if failure is None or not engine.up:  # one that is down converges when it is back
                continue
            if not isinstance(failure, Exception):
                raise failure
            if not (action == "unload" and isinstance(failure, ModelNotFound)):
                why = getattr(failure, "detail", None) or f"{type(failure).__name__}: {failure}"
                _log.error("model change failed on an engine", action=action, model=name, why=why)
                await self._converge(engine)
        self._let_go_of_others()
        await self._on_change()

    def _let_go_of_others(self, *, starting: int = 0) -> None:
        """Keep only versions that are wanted now, unless an engine that is starting may yet open another one.

        Args:
            starting: how many engines are not up, and have all that is wanted already.
        """
        if sum(not engine.up for engine in self._engines) <= starting:
            self._pins.keep(self._desired.values())

    async def _converge(self, engine: EngineControl) -> None:
        for name, reference in self._desired.items():
            with _logged("load", name) as failure:
                if await engine.prepare(reference):
                    await engine.commit(name)
            if failure:
                with suppress(PrunepoolError):
                    await engine.note_failure(name, failure[0])
        with _logged("set_default", self._default):
            await engine.set_default(self._default)
        served: Sequence[str] = ()
        with _logged("list", self._default):
            served = await engine.served()
        for name in set(served).difference(self._desired):
            with _logged("unload", name):
                await engine.unload(name)

    def _running(self, *, or_none: bool = False) -> list[EngineControl]:
        """The engines that run; others converge when they are back.

        Raises:
            EngineUnavailable: there is none, unless that is allowed.
        """
        running = [engine for engine in self._engines if engine.up]
        if not running and not or_none:
            raise EngineUnavailable("no engine is running", retry_after=1.0)
        return running


async def _unless_down(engine: EngineControl, change: Awaitable[bool]) -> bool:
    """The result of a change; False if the engine ended meanwhile: it converges when it is back."""
    try:
        return await change
    except EngineUnavailable:
        if engine.up:
            raise
        return False


@contextmanager
def _logged(action: str, name: str) -> Iterator[list[str]]:
    """Log what cannot be done with one model, and go on with the others; the list has the reason then."""
    failure: list[str] = []
    try:
        yield failure
    except PrunepoolError as error:
        failure.append(error.detail)
        _log.error("model change failed", action=action, model=name, why=error.detail)
    except Exception as error:
        failure.append(why_of(error))
        _log.exception("model change failed", action=action, model=name)
