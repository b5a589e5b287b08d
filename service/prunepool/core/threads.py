"""Threads: what one is called where the processor's time is counted, and pools that have theirs from the start."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

#: Linux keeps no more bytes of a name.
_LONGEST = 15


def name_thread(name: str) -> None:
    """Name the calling thread, as `top -H` shows it; threads that it starts inherit the name.

    Python before 3.14 sets the name within Python alone, and no version names threads that a library starts. Where
    the system has no such names, this does nothing.

    Args:
        name: cut off after 15 bytes.
    """
    with suppress(OSError):
        Path("/proc/thread-self/comm").write_bytes(name.encode()[:_LONGEST])


def started(pool: ThreadPoolExecutor, threads: int) -> ThreadPoolExecutor:
    """Start all threads of a new pool, which would start each when it is needed.

    At a limit on processes (`ulimit -u`, a pids limit), the system then has none to give, and what a request needs
    a thread for fails.

    Args:
        pool: new.
        threads: as many as it may have.

    Returns:
        The pool.

    Raises:
        RuntimeError: the system has not so many to give.
    """
    all_run = threading.Barrier(threads + 1)
    try:
        for _ in range(threads):
            pool.submit(all_run.wait)
        all_run.wait()
    except BaseException:
        all_run.abort()
        pool.shutdown(wait=False)
        raise
    return pool
