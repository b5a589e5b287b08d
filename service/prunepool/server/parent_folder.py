"""The folder of a server of several processes: sockets and metrics. It does not outlive them.

The parent holds a lock on it for as long as it lives. Whoever gets the lock knows that the parent has died, and
removes the folder: one of its children, or the next server where the parent died before it had any.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prunepool.errors import InvalidParameter

_PREFIX = "prunepool-"
#: Tells the folder of a server from one that somebody else named so.
_MARK = ".server"
#: What a dying process holds, it lets go of one by one.
_LET_GO_S = 1.0
#: One that is being made has no lock yet.
_BEING_MADE_S = 60.0
#: Bytes that the name of a socket may have (`sun_path` without its zero), and the longest that is in the folder.
_SOCKET_BYTES, _LONGEST_SOCKET = 107, "/engine-9999.sock"


@contextmanager
def parent_folder() -> Iterator[Path]:
    """A folder of this process, locked until it ends; those of servers that were killed are removed.

    Raises:
        InvalidParameter: there is no place for it: TMPDIR cannot be written to, or is too long for sockets.
    """
    with ExitStack() as stack:
        try:
            folder = _made(stack)
        except OSError as error:
            limit = f"a folder that can be written to ({error.strerror or error})"
            raise InvalidParameter("TMPDIR", os.environ.get("TMPDIR"), limit) from error
        yield folder


def _made(stack: ExitStack) -> Path:
    for dead in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if _is_abandoned(dead):
            remove_after_parent(dead, timeout_s=0.0)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    handle = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, handle)
    stack.callback(remove, folder)
    (folder / _MARK).touch()
    if not _is_utf8(folder):
        limit = "a folder whose name is UTF-8: addresses of sockets are made of it"
        raise InvalidParameter("TMPDIR", os.fsencode(folder.parent), limit)
    if (too_long := excess_bytes(folder)) > 0:
        limit = f"a folder whose name is shorter by {too_long} bytes: sockets are made in it"
        raise InvalidParameter("TMPDIR", str(folder.parent), limit)
    fcntl.flock(handle, fcntl.LOCK_EX)
    (folder / "metrics").mkdir()
    return folder


def excess_bytes(folder: Path) -> int:
    """By how many bytes the name of a server's folder is too long for the sockets in it; 0 or less if it is not."""
    return len(os.fsencode(folder)) + len(_LONGEST_SOCKET) - _SOCKET_BYTES


def _is_utf8(folder: Path) -> bool:
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        return False
    return True


def remove(folder: Path) -> None:
    """Remove a folder that no process needs any more.

    Raises:
        ValueError: it is not one that :func:`parent_folder` made.
    """
    if not (folder.is_absolute() and folder.name.startswith(_PREFIX)):
        raise ValueError(f"{folder} is no folder of a server, and is not removed")
    shutil.rmtree(folder, ignore_errors=True)


def remove_after_parent(folder: Path, timeout_s: float = _LET_GO_S) -> None:
    """Remove the folder of a parent that has died; nothing happens if it lives.

    Args:
        folder: of the parent.
        timeout_s: seconds that the system may take to end it.

    Raises:
        ValueError: it is no such folder; above all not the working directory, which an empty name would be.
    """
    over = time.monotonic() + timeout_s
    while True:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # another process was faster
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
            return
        except BlockingIOError:
            if time.monotonic() >= over:
                return
            time.sleep(0.02)
        finally:
            os.close(handle)


def _is_abandoned(folder: Path) -> bool:
    """Whether a folder may be one that a parent of this user has left."""
    try:
        found = folder.lstat()
    except OSError:  # removed meanwhile
        return False
    return (
        found.st_uid == os.geteuid()
        and (folder / _MARK).is_file()
        and time.time() - found.st_mtime > _BEING_MADE_S
    )
