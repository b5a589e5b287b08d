"""Exchanging two paths in one step, with Linux's renameat2(2). No maintained library wraps it."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: Errors of a kernel, or of a file system, that does not support the exchange.
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths of one file system atomically: every reader finds something at both, at any time.

    Links are exchanged themselves, not what they point to.

    Returns:
        False if it is not supported here; nothing was changed.

    Raises:
        FileNotFoundError: one of the paths does not exist.
        OSError: they cannot be renamed for another reason.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))
