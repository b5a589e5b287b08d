"""Reading files that others name: regular files only, and never more bytes than were expected."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class NotUtf8(ValueError):
    """A file is not UTF-8 text; the message is a clause that names the line and the byte."""


def read_text(path: Path | str, limit: int) -> str:
    """Read a regular file of UTF-8 text, with or without a byte-order mark; line ends stay as they are.

    Args:
        path: the file.
        limit: bytes that it may have at most.

    Raises:
        OSError: see :func:`read_regular`.
        NotUtf8: it is not UTF-8.
    """
    data = read_regular(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise NotUtf8(f"line {line} has the byte 0x{data[error.start]:02x}") from None


def read_regular(path: Path | str, limit: int) -> bytes:
    """Read a regular file, or a link to one.

    A pipe would be waited for, and a device such as /dev/zero has no end: both are refused without reading.

    Args:
        path: the file.
        limit: bytes that it may have at most; checked before memory is taken for them.

    Raises:
        OSError: it cannot be opened or read, is no regular file, or is longer; `strerror` says which.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
            raise OSError(errno.EINVAL, f"is {kind}; only regular files are read", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            # One byte more than allowed: a file may grow, and those of /proc have no size.
            data = file.read(limit + 1) if status.st_size <= limit else b""
    finally:
        os.close(handle)
    if status.st_size > limit or len(data) > limit:
        length = max(status.st_size, len(data))
        raise OSError(errno.EFBIG, f"has {length:,} bytes; at most {limit:,} are read", str(path))
    return data
