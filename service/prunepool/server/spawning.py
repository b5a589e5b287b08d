"""A process of the server, started from a fresh interpreter and waited for.

Each is a child of the parent itself (multiprocessing's `spawn`): there is no process in between whose death would
take others along, and the parent need not load what its children do.
"""

from __future__ import annotations

import asyncio
import os
import signal
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path

import structlog

from prunepool.server.signals import PARENTS_SIGNALS

#: The kernel closes what a process had open just before it can say how the process ended.
_ALMOST_OVER_S = 0.005
_log = structlog.stdlib.get_logger("prunepool.processes")


def start(process: SpawnProcess) -> None:
    """Start a process with the parent's signals blocked; it unblocks them once it ignores them.

    Ctrl-C goes to every process of a terminal, also to one that is still importing.

    Raises:
        OSError: the system has no process, memory or descriptor to give.
    """
    # A fresh interpreter would look for modules of Python's in the working directory first.
    os.environ["PYTHONSAFEPATH"] = "1"
    _be_somewhere()
    resource_tracker.ensure_running()  # starting it later would unblock them again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _be_somewhere() -> None:
    """Leave a working directory that was removed: a process cannot be started in it, nor any file found."""
    try:
        Path.cwd()
    except FileNotFoundError:
        _log.warning("the working directory was removed; this process goes on in /")
        os.chdir("/")


async def ended(process: SpawnProcess) -> None:
    """Wait for the end of a process; `process.exitcode` says how, then."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    sentinel = process.sentinel
    loop.add_reader(sentinel, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(sentinel)
    while process.exitcode is None:  # noqa: ASYNC110 - the system tells of this to nobody
        await asyncio.sleep(_ALMOST_OVER_S)
