"""prometheus_client's file of series, with its room on the disk reserved before it is mapped.

A mapped page that finds no room on the disk (tmpfs, a full TMPDIR) ends the process by SIGBUS as soon as it is
written to; a reservation that finds none is an error, which can be acted upon.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

#: As large as prometheus_client makes a new file; room for some 400 series.
_FIRST_BYTES = 1 << 16
#: What an entry takes beside its key: a length, padding and two doubles.
_MOST_BESIDE_KEY = 4 + 8 + 16


class ReservedFile(MmapedDict):
    """A `MmapedDict` that is whole on the disk at any time.

    Args:
        filename: of the file; made if it is not there.
        read_mode: whether it is only read.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode and not Path(filename).exists():
            _make(Path(filename))
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """Make an entry.

        Raises:
            OSError: the file would have to grow, and there is no room for that.
        """
        needed = self._used + len(key.encode()) + _MOST_BESIDE_KEY
        capacity = self._capacity
        while capacity < needed:
            capacity *= 2
        if capacity > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _make(path: Path) -> None:
    """Put a file of zeros into place when it is complete, so that no scrape reads one that is empty."""
    made = path.with_suffix(".new")
    try:
        with made.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _FIRST_BYTES)
        made.replace(path)
    except OSError:
        with suppress(OSError):
            made.unlink()
        raise
