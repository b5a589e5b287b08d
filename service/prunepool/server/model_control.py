"""Which models are served, as callers and the settings say while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from prunepool.errors import PrunepoolError
from prunepool.store import Repository

_log = structlog.stdlib.get_logger("prunepool.models")


class Models(Protocol):
    """Models that can be changed while they are served, in this process or in others."""

    def served(self) -> tuple[str, ...]:
        """Their names."""

    async def load(self, reference: str) -> bool:
        """Serve a model, or serve it anew if it has changed.

        Args:
            reference: its name in the store, or its folder.

        Returns:
            Whether it was not served as it is already.
        """

    async def unload(self, name: str) -> None:
        """Serve a model no longer."""

    async def prefer(self, name: str) -> None:
        """Have a served model answer requests that name none."""


class Control:
    """The :class:`~prunepool.serving.types.ModelControl` of a server; one change at a time.

    Args:
        models: what is changed.
        repository: what can be served.
        references: the models that the settings asked for at the start, the default first.

    Raises:
        ModelNotFound: one of them is not there.
        ManifestInvalid: its model.json does not say what it must.
    """

    def __init__(self, models: Models, repository: Repository, references: Iterable[str]) -> None:
        self._models = models
        self._repository = repository
        self._asked = repository.declare(references)
        self._one_at_a_time = asyncio.Lock()

    def loadable(self) -> tuple[str, ...]:
        """Names of the models that could be served."""
        return self._repository.names()

    async def load(self, name: str) -> None:
        """Serve a model, or serve it anew if it has changed; returns when it answers."""
        async with self._one_at_a_time:
            await self._load(name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; returns when all that it had accepted is answered."""
        async with self._one_at_a_time:
            await self._models.unload(name)
            _log.info("model unloaded", model=name)

    async def follow(self, references: Iterable[str]) -> None:
        """Serve what the settings ask for now.

        Models that they name for the first time are loaded, served ones whose files have changed are replaced,
        those that they named before and name no longer are unloaded. What callers loaded stays. Whatever cannot
        be done is logged, and nothing else suffers from it.

        Args:
            references: names in the store or folders, the default first.
        """
        async with self._one_at_a_time:
            try:
                asked = await asyncio.to_thread(self._repository.declare, references)
            except PrunepoolError as error:
                _log.error("models stay as they were", why=error.detail)
                return
            for name in dict.fromkeys((*asked, *self._models.served())):
                with _logged(name):
                    await self._load(name)
            with _logged(asked[0]):
                await self._models.prefer(asked[0])
            for name in set(self._models.served()).intersection(self._asked).difference(asked):
                with _logged(name):
                    await self._models.unload(name)
            self._asked = asked
            _log.info("models read", served=", ".join(self._models.served()))

    async def _load(self, name: str) -> None:
        if await self._models.load(self._repository.reference(name)):
            _log.info("model loaded", model=name)


@contextmanager
def _logged(name: str) -> Iterator[None]:
    """Let what cannot be done with one model be no other's business."""
    try:
        yield
    except PrunepoolError as error:
        _log.error("model stays as it was", model=name, why=error.detail)
    except Exception:
        _log.exception("model stays as it was", model=name)
