"""The parent watch of every child process: it takes orders from its parent alone, and ends when that is gone."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

from prunepool.logs import exit_now
from prunepool.server.control_pipe import ControlPipe, Handler
from prunepool.server.parent_folder import remove_after_parent
from prunepool.server.signals import PARENTS_SIGNALS

#: Of prctl(2).
_PR_SET_PDEATHSIG = 1
#: A process whose event loop has not ended it by then, after its parent has died, is stuck.
_STUCK_S = 2.0


def watch_parent(connection: Connection, handlers: dict[str, Handler], folder: Path) -> ControlPipe:
    """Answer the calls of the parent, and end at once if it dies or closes the pipe.

    Args:
        connection: to the parent.
        handlers: what it may call.
        folder: the server's files, which nobody else is left to remove if the parent has died.
    """

    def end() -> None:
        remove_after_parent(folder)
        exit_now(1)

    return ControlPipe(connection, handlers, end)


def ignore_signals() -> None:
    """Leave them to the parent: a terminal or an init system may send them to all processes at once."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The parent starts a process with them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even if it is stopped or stuck. On Linux only."""
    _signal_at_death_of_parent(signal.SIGKILL)


def outlive_parent_to_clean_up(folder: Path) -> None:
    """Have this process end soon after its parent has died, even if it is stopped or its event loop is stuck.

    It is not killed by the kernel, because somebody must remove what the parent leaves.

    Args:
        folder: of the parent.
    """
    _signal_at_death_of_parent(signal.SIGCONT)
    threading.Thread(target=_end_after_parent, args=(folder,), name="parent-watch", daemon=True).start()


def _end_after_parent(folder: Path) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    time.sleep(_STUCK_S)
    remove_after_parent(folder)
    os._exit(1)


def _signal_at_death_of_parent(number: signal.Signals) -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it died before it was watched
