"""The models of one engine process, changed from the parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunepool.server.children import Child

#: Warming a model up may take long; everything else is done at once, but an unload waits for its last answers.
_PREPARE_S, _COMMIT_S = 900.0, 120.0


class EngineChild:
    """The `EngineControl` of an engine process.

    Args:
        child: the process.
    """

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def up(self) -> bool:
        """Whether it serves."""
        return self._child.up

    async def served(self) -> Sequence[str]:
        """Names of the models that it serves."""
        names: list[str] = await self._call("served")
        return names

    async def prepare(self, reference: str) -> bool:
        """Warm a model up beside those that it serves; whether there is anything to commit."""
        return bool(await self._call("prepare", reference, timeout_s=_PREPARE_S))

    async def commit(self, name: str) -> None:
        """Serve a prepared model."""
        await self._call("commit", name)

    async def abort(self, name: str) -> None:
        """Forget a prepared model, if there is one."""
        await self._call("abort", name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered."""
        await self._call("unload", name)

    async def set_default(self, name: str) -> None:
        """Have a served model answer requests that name none."""
        await self._call("set_default", name)

    async def note_failure(self, name: str, why: str) -> None:
        """Say of a model that is to be served, and could not be loaded, why it is not."""
        await self._call("note_failure", name, why)

    async def _call(self, method: str, *arguments: str, timeout_s: float = _COMMIT_S) -> Any:
        return await self._child.call(method, *arguments, timeout_s=timeout_s)
