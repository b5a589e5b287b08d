"""Memory that processes of a server share: a file without a name, so that nothing can be left behind.

The parent makes it and every child inherits it; when the last of them is gone, however it went, so is the memory.
It is written to and read from and never mapped. So it takes no addresses (`ulimit -v`), and where there is no room
for more, a write fails; a page of a mapped file that finds no room ends the process. What was never written to
costs nothing.
"""

from __future__ import annotations

import errno
import os
import tempfile
from multiprocessing import reduction
from typing import Any


class SharedFile:
    """A file in memory where the system has such, else one on the disk that is deleted already."""

    def __init__(self) -> None:
        self._descriptor = _memory()

    def __getstate__(self) -> Any:
        """For a process that is being started: the memory itself goes along, not a copy."""
        return reduction.DupFd(self._descriptor)

    def __setstate__(self, state: Any) -> None:
        """In the process that was started."""
        self._descriptor = state.detach()

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of it.

        Raises:
            OSError: there is no room.
        """
        if os.pwrite(self._descriptor, data, offset) != memoryview(data).nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, offset: int, nbytes: int) -> bytearray:
        """A copy of what was written.

        Raises:
            ValueError: so much was never written.
        """
        data = bytearray(nbytes)
        if os.preadv(self._descriptor, [data], offset) != nbytes:
            raise ValueError(f"no {nbytes} bytes at {offset}")
        return data

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def _memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("prunepool", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
