"""A toy backend that stops the whole process: the next batch after a file appears holds Python's lock for good.

Some libraries do so by a bug. No event loop runs then, no thread, and no signal handler.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import lost_device

from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.core.types import Batch, Output
from prunepool.store import StoredModel


class WedgingBackend(lost_device.LosableBackend):
    """Stands still for an hour in the first batch that finds the file which `WEDGE` names."""

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """As the losable one, unless it stands still."""
        file = Path(os.environ["WEDGE"])
        if file.exists():
            file.unlink(missing_ok=True)
            ctypes.PyDLL(None).sleep(3600)
        return super().run(batch, prepared)


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """A backend, if the device of this process is not lost."""
    loaded = lost_device.make(stored, options, decisions)
    return LoadedBackend(
        WedgingBackend(len(stored.manifest.labels), batch_s=0.002), loaded.device, loaded.dtype
    )
