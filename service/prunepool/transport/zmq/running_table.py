"""Which requests an engine has on its device, in memory that outlives it: those that only waited are not blamed.

The engine writes, from the thread that owns the device; a front end reads after the engine is lost. A row holds the
number of a front end and that of its request while a device runs it, and after the device has failed with it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from prunepool.transport.zmq.shared_file import SharedFile

#: More requests than an engine usually has; those beyond have no row.
_ROWS = 4096
_ID_BITS, _ROW_BYTES = 48, 8


class RunningTable:
    """The table of one engine; every process of a server has it.

    Args:
        rows: for how many requests.
    """

    def __init__(self, rows: int = _ROWS) -> None:
        self._set(SharedFile(), rows)
        self.clear()  # so that there is room for every row from now on

    def _set(self, file: SharedFile, rows: int) -> None:
        self._file = file
        self._count = rows
        self._free = list(range(rows))

    def __getstate__(self) -> tuple[SharedFile, int]:
        """For a process that is being started; all rows are free in it."""
        return self._file, self._count

    def __setstate__(self, state: tuple[SharedFile, int]) -> None:
        """In the process that was started."""
        self._set(*state)

    def clear(self) -> None:
        """Forget what an engine before this one had; for an engine, before it serves."""
        self._file.write(0, bytes(_ROW_BYTES * self._count))

    def row(self, frontend: int, number: int) -> Row | None:
        """A row for a request; None if all are taken.

        Args:
            frontend: its front end.
            number: its id there.
        """
        return Row(self, self._free.pop(), _key(frontend, number)) if self._free else None

    def numbers(self, frontend: int) -> Collection[int]:
        """The requests of a front end that the engine has, or had when it was lost, on its device."""
        first = int(_key(frontend, 0))
        rows: NDArray[np.uint64] = np.frombuffer(self._file.read(0, _ROW_BYTES * self._count), np.uint64)
        keys = (int(key) for key in rows[rows != 0])
        return {key - first for key in keys if 0 <= key - first < 1 << _ID_BITS}

    def write(self, index: int, key: np.uint64) -> None:
        """Fill a row; for :class:`Row`."""
        self._file.write(_ROW_BYTES * index, key.tobytes())

    def release(self, index: int) -> None:
        """Let another request have a row; for :class:`Row`."""
        self._free.append(index)


class Row:
    """One request's row; implements :class:`prunepool.core.types.DeviceMark`.

    Args:
        table: where it is.
        index: which one.
        key: what it holds while the request is on a device.
    """

    def __init__(self, table: RunningTable, index: int, key: np.uint64) -> None:
        self._table = table
        self._index = index
        self._key = key
        self._over = False

    def set(self) -> None:
        """A device is about to run the request."""
        self._write(self._key)

    def clear(self) -> None:
        """The device has run it without failing."""
        self._write(np.uint64(0))

    def free(self) -> None:
        """The request is over; a device that still computes it no longer shows it."""
        self.clear()
        self._over = True
        self._table.release(self._index)

    def _write(self, key: np.uint64) -> None:
        if not self._over:
            self._table.write(self._index, key)


def _key(frontend: int, number: int) -> np.uint64:
    return np.uint64(((frontend + 1) << _ID_BITS) + number)
