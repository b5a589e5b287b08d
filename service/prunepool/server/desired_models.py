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

from prunepool.errors import EngineUnavailable, ModelNotFound, PrunepoolError, RequestError
from prunepool.store import Repository

_log = structlog.stdlib.get_logger("prunepool.models")


class EngineControl(Protocol):
    """The models of one engine, in this process or in another one; calls do not overlap."""

    @property
    def up(self) -> bool:
        """Whether it serves; one that does not converges when it does again."""

    async def served(self) -> Sequence[str]:
        """Names of the models that it serves."""

    async def prepare(self, reference: str) -> bool:
        """Warm a model up beside those that it serves.

        Args:
            reference: its name in the store, or its folder.

        Returns:
            Whether there is anything to commit: it is not served as it is already.

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
        """Have a served model answer requests that name none."""


async def _nothing() -> None:
    pass


class DesiredModels:
    """The :class:`~prunepool.serving.types.ModelControl` of a server; one change at a time.

    Args:
        engines: what serves them.
        repository: what can be served.
        references: the models that the settings asked for at the start, the default first.
        on_change: awaited after each change, before it counts as done.

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
    ) -> None:
        self._engines = engines
        self._repository = repository
        self._configured = repository.declare(references)
        self._desired = {name: repository.reference(name) for name in self._configured}
        self._default = self._configured[0]
        self._on_change = on_change
        self._one_at_a_time = asyncio.Lock()

    @property
    def references(self) -> tuple[str, ...]:
        """What an engine that starts now is to serve, the default first."""
        others = (reference for name, reference in self._desired.items() if name != self._default)
        return (self._desired[self._default], *others)

    def served(self) -> tuple[str, ...]:
        """Names of the models that are to be served."""
        return tuple(self._desired)

    def loadable(self) -> tuple[str, ...]:
        """Names of the models that could be served."""
        return self._repository.names()

    async def load(self, name: str) -> None:
        """Serve a model, or serve it anew if it has changed; returns when it answers.

        Raises:
            ModelNotFound: none of that name can be loaded.
            EngineUnavailable: no engine is there.
            PrunepoolError: it cannot be served; what was served is served on, by every engine.
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
        done is logged; the other models are changed all the same.

        Args:
            references: names in the store or folders, the default first.
        """
        async with self._one_at_a_time:
            try:
                asked = await asyncio.to_thread(self._repository.declare, references)
            except PrunepoolError as error:
                _log.error("models stay as they were", why=error.detail)
                return
            for name in dict.fromkeys((*asked, *self._desired)):
                with _logged(name):
                    await self._load(name)
            with _logged(asked[0]):
                await self._set_default(asked[0])
            for name in set(self._desired).intersection(self._configured).difference(asked):
                with _logged(name):
                    await self._unload(name)
            self._configured = asked
            _log.info("models read", served=", ".join(self._desired))

    async def converge(self, engine: EngineControl) -> None:
        """Bring an engine that has just started to what is to be served now; what it cannot serve is logged."""
        async with self._one_at_a_time:
            for name, reference in self._desired.items():
                with _logged(name):
                    if await engine.prepare(reference):
                        await engine.commit(name)
            with _logged(self._default):
                await engine.set_default(self._default)
            with _logged("others"):
                for name in set(await engine.served()).difference(self._desired):
                    await engine.unload(name)
            await self._on_change()

    async def _load(self, name: str) -> None:
        reference = self._repository.reference(name)
        prepared: list[EngineControl] = []
        try:
            for engine in self._running():
                if await _unless_lost(engine, engine.prepare(reference)):
                    prepared.append(engine)  # noqa: PERF401 - those before a failure count
            self._running()  # were they all lost meanwhile, nothing is loaded
        except BaseException:
            for engine in self._engines:
                with suppress(PrunepoolError):
                    await engine.abort(name)
            raise
        self._desired[name] = reference
        for engine in prepared:
            await _unless_lost(engine, engine.commit(name))
        await self._on_change()
        if prepared:
            _log.info("model loaded", model=name)

    async def _unload(self, name: str) -> None:
        if name not in self._desired:
            raise ModelNotFound(
                f"no model named {name[:100]!r} is served; there are: {', '.join(self._desired)}"
            )
        if name == self._default:
            raise RequestError(f"{name} answers requests that name no model, so it cannot be unloaded")
        engines = self._running()
        reference = self._desired.pop(name)
        try:
            await asyncio.gather(*(_unless_lost(engine, engine.unload(name)) for engine in engines))
        except BaseException:
            self._desired[name] = reference
            raise
        await self._on_change()
        _log.info("model unloaded", model=name)

    async def _set_default(self, name: str) -> None:
        if name not in self._desired:
            raise ModelNotFound(f"{name} is not served")
        for engine in self._running():
            await _unless_lost(engine, engine.set_default(name))
        self._default = name
        await self._on_change()

    def _running(self) -> list[EngineControl]:
        """The engines that are there; others converge when they are."""
        running = [engine for engine in self._engines if engine.up]
        if not running:
            raise EngineUnavailable("no engine is there to be changed", retry_after=1.0)
        return running


async def _unless_lost(engine: EngineControl, change: Awaitable[bool | None]) -> bool:
    """Whether an engine made a change; False for one that ended meanwhile, which converges when it is back."""
    try:
        return bool(await change)
    except EngineUnavailable:
        if engine.up:
            raise
        return False


@contextmanager
def _logged(name: str) -> Iterator[None]:
    """Log what cannot be done with one model, and go on with the others."""
    try:
        yield
    except PrunepoolError as error:
        _log.error("model stays as it was", model=name, why=error.detail)
    except Exception:
        _log.exception("model stays as it was", model=name)
