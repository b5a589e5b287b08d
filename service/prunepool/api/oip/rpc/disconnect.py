"""Ends the connection of a client, which gRPC itself offers nothing for."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

_OPEN_FILES = Path("/proc/self/fd")


def disconnect(peer: str) -> bool:
    """Shut down the connection of this process to a client; gRPC then ends its calls.

    Args:
        peer: as gRPC names it: `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`.

    Returns:
        Whether it was found; never on other systems than Linux.
    """
    address, _, port = unquote(peer).partition(":")[2].rpartition(":")
    wanted = (address.strip("[]"), port)
    if not _OPEN_FILES.is_dir():
        return False
    return any(_shut_down(int(file.name), wanted) for file in _OPEN_FILES.iterdir())


def _shut_down(number: int, wanted: tuple[str, str]) -> bool:
    """Shut down an open file if it is a connection to the address and port wanted."""
    with suppress(OSError):  # closed meanwhile, or not connected
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        with socket.socket(
            fileno=os.dup(number)
        ) as own:  # it stays what it is, whatever becomes of the number
            if own.family not in (socket.AF_INET, socket.AF_INET6):
                return False
            address, port = own.getpeername()[:2]
            if (address.removeprefix("::ffff:"), str(port)) == wanted:
                own.shutdown(socket.SHUT_RDWR)
                return True
    return False
