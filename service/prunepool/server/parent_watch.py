"""The parent watch of every child process: it takes orders from its parent alone, and ends when that is gone."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from prunepool.server.control_pipe import ControlPipe, Handler
from prunepool.server.parent_folder import remove_after_parent

#: Only the parent acts on these.
PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def watch_parent(connection: Connection, handlers: dict[str, Handler], folder: Path) -> ControlPipe:
    """Answer the calls of the parent, and end at once if it dies or closes the pipe.

    Args:
        connection: to the parent.
        handlers: what it may call.
        folder: the server's files, which nobody else is left to remove if the parent has died.
    """

    def end() -> None:
        remove_after_parent(folder)
        os._exit(1)

    return ControlPipe(connection, handlers, end)


def ignore_signals() -> None:
    """Leave them to the parent: a terminal or an init system may send them to all processes at once."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The parent starts a process with them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)
