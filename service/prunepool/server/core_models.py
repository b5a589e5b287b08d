"""The models of the core in this process, changed while they are served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prunepool.core.core import Core
from prunepool.core.model_info import ModelInfo
from prunepool.core.served_model import ServedModel


class CoreModels:
    """The `EngineControl` of a core.

    Args:
        core: what serves them.
        open_model: makes what the core takes of a name in the store, or of a folder; called in a thread.
        check: raises for a model that the settings do not fit.
    """

    up = True

    def __init__(
        self, core: Core, open_model: Callable[[str], ServedModel], check: Callable[[ModelInfo], None]
    ) -> None:
        self._core = core
        self._open = open_model
        self._check = check
        self._preparing: asyncio.Task[Any] | None = None

    async def served(self) -> Sequence[str]:
        """Names of the models that are served."""
        return [entry.model.name for entry in self._core.entries]

    async def prepare(self, reference: str) -> bool:
        """Warm a model up beside those that are served; whether there is anything to commit."""
        self._preparing = asyncio.current_task()
        try:
            model = await self._opened(reference)
            self._check(model.info())
            if self._core.serves(model):
                return False
            await self._core.prepare(model)
            return True
        finally:
            self._preparing = None

    async def _opened(self, reference: str) -> ServedModel:
        """Open a model in a thread that ends: a server has no more threads after a change than before."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="prunepool-open")
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._open, reference)
        finally:
            pool.shutdown(wait=False)

    async def commit(self, name: str) -> None:
        """Serve a prepared model, in the place of the one of its name."""
        await self._core.commit(name)

    async def abort(self, name: str) -> None:
        """Forget a model that is prepared, or being prepared, if there is one."""
        if self._preparing is not None and self._preparing is not asyncio.current_task():
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
        await self._core.abort(name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered."""
        await self._core.unload(name)

    async def set_default(self, name: str) -> None:
        """Have a model answer requests that name none; one that could not be loaded answers them later."""
        self._core.set_default(name)

    async def note_failure(self, name: str, why: str) -> None:
        """Say of a model that is to be served, and could not be loaded, why it is not."""
        self._core.note_failure(name, why)
