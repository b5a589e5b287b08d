"""What SIGHUP does: API keys, settings and models are read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from prunepool.access import Keyring
from prunepool.server.desired_models import DesiredModels
from prunepool.settings import Settings

_log = structlog.stdlib.get_logger("prunepool.server")


class Hangup:
    """The handler of SIGHUP.

    Args:
        keyring: the keys, if any are asked for.
        follow: has the models follow the settings, if they can be changed.
    """

    def __init__(
        self, keyring: Keyring | None, follow: Callable[[], Coroutine[Any, Any, None]] | None
    ) -> None:
        self._keyring = keyring
        self._follow = follow
        self._following: set[asyncio.Task[None]] = set()

    def __call__(self) -> None:
        """Begin; on the event loop."""
        if self._keyring is not None:
            self._keyring.reload()
        if self._follow is not None:
            task = asyncio.get_running_loop().create_task(self._follow())
            self._following.add(task)
            task.add_done_callback(self._following.discard)


async def follow_settings(models: DesiredModels, reread: Callable[[], Settings]) -> None:
    """Read the settings again, and serve the models that they ask for now."""
    try:
        settings = reread()
    except Exception as error:  # of whoever reads the settings; what was read before is good still
        _log.error("settings stay as they were", why=str(error))
        return
    await models.follow(settings.model_references)
