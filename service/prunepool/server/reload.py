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


class Coalesced:
    """Runs a job whenever it is called; calls that come while it runs become one more run.

    Args:
        job: what to run; what it raises is logged.
    """

    def __init__(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._job = job
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        """Run it, on the running event loop."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._again:
            self._again = False
            try:
                await self._job()
            except Exception:
                _log.exception("unexpected error")


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
        self._follow = None if follow is None else Coalesced(follow)

    def __call__(self) -> None:
        """Begin; on the event loop."""
        if self._keyring is not None:
            self._keyring.reload()
        if self._follow is not None:
            self._follow()


async def follow_settings(models: DesiredModels, reread: Callable[[], Settings]) -> None:
    """Read the settings again, and serve the models that they ask for now."""
    try:
        settings = reread()
    except Exception as error:  # of whoever reads the settings; what was read before is good still
        _log.error("settings stay as they were", why=str(error))
        return
    await models.follow(settings.model_references)
