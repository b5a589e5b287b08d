"""Shared memory for pixels: slots of one size, without a name, so that nothing can be left behind.

The parent makes it and every child inherits it; when the last of them is gone, however it went, so is the memory.
Pages that were never written cost nothing.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Enough for 591 × 591 pixels of float32, or 1182 × 1182 of uint8.
SLOT_BYTES = 4 * 1024 * 1024


class Arena:
    """Slots that one process fills and others read.

    Args:
        slots: how many.
        slot_bytes: the size of each.
    """

    def __init__(self, slots: int, slot_bytes: int = SLOT_BYTES) -> None:
        self._slot_bytes = slot_bytes
        self._size = slots * slot_bytes
        self._fd = _memory()
        os.ftruncate(self._fd, self._size)
        self._map: mmap.mmap | None = None
        #: The slots that are free; the last to be freed is the next to be taken, its pages are there already.
        self._free = list(reversed(range(slots)))

    def __getstate__(self) -> tuple[Any, int, int]:
        """For a process that is being started: the memory itself goes along, not a copy."""
        return reduction.DupFd(self._fd), self._slot_bytes, self._size

    def __setstate__(self, state: tuple[Any, int, int]) -> None:
        """In the process that was started, with all slots free."""
        inherited, self._slot_bytes, self._size = state
        self._fd = inherited.detach()
        self._map = None
        self._free = list(reversed(range(self._size // self._slot_bytes)))

    @property
    def free(self) -> int:
        """How many slots are free."""
        return len(self._free)

    @contextmanager
    def holding(self, pixels: NDArray[Any]) -> Iterator[int | None]:
        """The number of a slot with these pixels in it while the block runs; None where they find no room."""
        if not self._free or pixels.nbytes > self._slot_bytes:
            yield None
            return
        slot = self._free.pop()
        try:
            np.frombuffer(self._slot(slot), pixels.dtype, pixels.size)[:] = pixels.reshape(-1)
            yield slot
        finally:
            self._free.append(slot)

    def read(self, slot: int, nbytes: int) -> memoryview:
        """The first bytes of a slot.

        Raises:
            ValueError: there is no such slot, or not so much in it.
        """
        if not (0 <= slot < self._size // self._slot_bytes and 0 <= nbytes <= self._slot_bytes):
            raise ValueError(f"no {nbytes} bytes in slot {slot}")
        return self._slot(slot)[:nbytes]

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def _slot(self, slot: int) -> memoryview:
        if self._map is None:
            self._map = mmap.mmap(self._fd, self._size)
        start = slot * self._slot_bytes
        return memoryview(self._map)[start : start + self._slot_bytes]


def _memory() -> int:
    """A file without a name: in memory where the system has such, else one that is deleted already."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("prunepool-pixels", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
