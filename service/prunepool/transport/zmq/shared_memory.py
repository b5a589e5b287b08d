"""Shared memory for pixels: slots of one size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from prunepool.transport.zmq.shared_file import SharedFile

#: Enough for 591 × 591 pixels of float32, or 1182 × 1182 of uint8.
SLOT_BYTES = 4 * 1024 * 1024
_log = structlog.stdlib.get_logger("prunepool.transport")


class Arena:
    """Slots that one process fills and others read.

    Args:
        slots: how many.
        slot_bytes: the size of each.
    """

    def __init__(self, slots: int, slot_bytes: int = SLOT_BYTES) -> None:
        self._set(SharedFile(), slots, slot_bytes)

    def _set(self, file: SharedFile, slots: int, slot_bytes: int) -> None:
        self._file = file
        self._slots = slots
        self._slot_bytes = slot_bytes
        #: The slots that are free; the last to be freed is the next to be taken, its pages are there already.
        self._free = list(reversed(range(slots)))
        self._complained = False

    def __getstate__(self) -> tuple[SharedFile, int, int]:
        """For a process that is being started; all slots are free in it."""
        return self._file, self._slots, self._slot_bytes

    def __setstate__(self, state: tuple[SharedFile, int, int]) -> None:
        """In the process that was started."""
        self._set(*state)

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
            yield slot if self._write(slot, pixels) else None
        finally:
            self._free.append(slot)

    def read(self, slot: int, nbytes: int) -> bytearray:
        """A copy of the first bytes of a slot.

        Raises:
            ValueError: there is no such slot, or not so much in it.
        """
        if not (0 <= slot < self._slots and 0 <= nbytes <= self._slot_bytes):
            raise ValueError(f"no {nbytes} bytes in slot {slot}")
        return self._file.read(slot * self._slot_bytes, nbytes)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()

    def _write(self, slot: int, pixels: NDArray[Any]) -> bool:
        """Fill a slot; whether there was room."""
        try:
            self._file.write(slot * self._slot_bytes, np.ascontiguousarray(pixels).data)
        except OSError as error:
            if not self._complained:
                self._complained = True
                why = error.strerror
                _log.warning("shared memory cannot be written to; pixels go through sockets instead", why=why)
            return False
        return True
