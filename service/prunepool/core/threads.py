"""What a thread is called where the processor's time is counted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

#: Linux keeps no more bytes of a name.
_LONGEST = 15


def name_thread(name: str) -> None:
    """Have the system call the calling thread so, as `top -H` shows it, and those that it starts from now on.

    Python 3.13 and before name threads for Python alone, and no version names those that a library starts. It is
    for whoever looks: where the system keeps no such names, nothing is lost.

    Args:
        name: what comes after 15 bytes is cut off.
    """
    with suppress(OSError):
        Path("/proc/thread-self/comm").write_bytes(name.encode()[:_LONGEST])
