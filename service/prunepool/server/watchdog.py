"""A watchdog for child processes: one whose event loop does not answer is replaced."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from prunepool.errors import PrunepoolError

#: Seconds between two pings, and how many in a row may go unanswered: a process is replaced after some 10 s.
PING_S, MOST_MISSED = 1.0, 10
_log = structlog.stdlib.get_logger("prunepool.processes")


class Watched(Protocol):
    """A process that can be pinged and replaced."""

    name: str

    @property
    def up(self) -> bool:
        """Whether it is expected to answer."""

    async def call(self, method: str, *arguments: str, timeout_s: float | None = None) -> object:
        """Have it do something."""

    def replace(self) -> None:
        """End it and let another one take its place."""


async def watch(process: Watched, ping_s: float = PING_S, most_missed: int = MOST_MISSED) -> None:
    """Ping a process for ever, and replace it when it does not answer.

    Missed pings are counted and not timed: a parent that stood still itself, with the whole machine, missed one.

    Args:
        process: what is watched.
        ping_s: seconds between two pings.
        most_missed: unanswered pings in a row after which it is replaced.
    """
    loop = asyncio.get_running_loop()
    missed, pause_s = 0, ping_s
    while True:
        await asyncio.sleep(pause_s)
        pause_s = ping_s
        if not process.up:
            missed = 0
            continue
        pinged = loop.time()
        try:
            await process.call("ping", timeout_s=ping_s)
            missed = 0
        except Exception as error:
            if not isinstance(error, PrunepoolError):
                _log.exception("unexpected error while a process was pinged", name=process.name)
            missed += 1
            # A ping that goes unanswered has taken its whole time-out: the next one is due.
            pause_s = max(0.0, ping_s - (loop.time() - pinged))
        if missed >= most_missed and process.up:
            _log.error("process does not answer and is replaced", name=process.name, pings_missed=missed)
            process.replace()
            missed = 0
