"""What a thread is called where the processor's time is counted."""

from __future__ import annotations

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
