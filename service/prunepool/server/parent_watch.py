"""The parent watch of every child process: it takes orders from its parent alone, and ends when that is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from prunepool.server.control_pipe import ControlPipe, Handler

#: Only the parent acts on these.
PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
#: What a dying process holds, it lets go of one by one.
_LET_GO_S = 1.0


def watch_parent(connection: Connection, handlers: dict[str, Handler], folder: Path) -> ControlPipe:
    """Answer the calls of the parent, and end at once if it dies or closes the pipe.

    Args:
        connection: to the parent.
        handlers: what it may call.
        folder: the server's files, which nobody else is left to remove if the parent has died.
    """

    def end() -> None:
        if _lock(folder, _LET_GO_S):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    return ControlPipe(connection, handlers, end)


def ignore_signals() -> None:
    """Leave them to the parent: a terminal or an init system may send them to all processes at once."""
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The parent starts a process with them blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)


@contextmanager
def parental_folder() -> Iterator[Path]:
    """A folder for sockets and metrics, gone at the end; locked for as long as the parent lives."""
    folder = Path(tempfile.mkdtemp(prefix="prunepool-"))
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        (folder / "metrics").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _lock(folder: Path, timeout_s: float) -> bool:
    """Wait for the lock on the parent's folder, which its death frees; whether it came."""
    over = time.monotonic() + timeout_s
    while time.monotonic() < over:
        try:
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # another child was faster
            return False
    return False
