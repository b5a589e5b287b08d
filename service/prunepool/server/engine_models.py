"""The models of all engine processes, changed together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prunepool.errors import EngineUnavailable
from prunepool.server import factory
from prunepool.server.children import Child
from prunepool.settings import Settings
from prunepool.store import open_store


class EveryEngine:
    """What all engines serve: one after the other is changed, so that the others answer meanwhile.

    Args:
        engines: the engine processes.
        frontends: told of every change before it counts as done.
        settings: of the server.
    """

    def __init__(self, engines: Sequence[Child], frontends: Sequence[Child], settings: Settings) -> None:
        self._engines = engines
        self._frontends = frontends
        self._store = open_store(settings.model_store)
        references = factory.references(settings)
        self._served = {self._name(reference): reference for reference in references}
        self._default = next(iter(self._served))

    @property
    def references(self) -> tuple[str, ...]:
        """What an engine that starts now shall serve, the default first."""
        others = (reference for name, reference in self._served.items() if name != self._default)
        return (self._served[self._default], *others)

    def served(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._served)

    async def load(self, reference: str) -> bool:
        """Serve a model, or serve it anew if it has changed; whether there was anything to do."""
        changed = [await engine.call("load", reference) for engine in self._running()]
        self._served[self._name(reference)] = reference
        await self._told()
        return any(changed)

    async def unload(self, name: str) -> None:
        """Serve a model no longer."""
        engines = self._running()
        await asyncio.gather(*(engine.call("unload", name) for engine in engines))
        self._served.pop(name, None)
        await self._told()

    async def prefer(self, name: str) -> None:
        """Have a served model answer requests that name none."""
        for engine in self._running():
            await engine.call("prefer", name)
        self._default = name
        await self._told()

    def _running(self) -> list[Child]:
        """The engines that are there; others will start with what is served then."""
        running = [engine for engine in self._engines if engine.up]
        if not running:
            raise EngineUnavailable("no engine is there to be changed", retry_after=1.0)
        return running

    async def _told(self) -> None:
        """Have all front ends look, so that none refuses what another has said is there."""
        looking = (frontend.call("look") for frontend in self._frontends if frontend.up)
        await asyncio.gather(*looking, return_exceptions=True)

    def _name(self, reference: str) -> str:
        return self._store.open(reference).manifest.name
