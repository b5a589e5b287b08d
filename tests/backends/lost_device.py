"""A toy backend whose device is lost once, for as long as the process lives, as after most CUDA errors.

What it measures comes out differently each time, as a timing may: only decisions that are kept stay the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import toy_backend

from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.core.types import Batch, Output
from prunepool.store import StoredModel

_lost: list[str] = []


class LosableBackend(toy_backend.ToyBackend):
    """Loses its device in the first batch that finds the file which `LOSE_DEVICE` names."""

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """As the toy, unless the device is lost."""
        file = Path(os.environ["LOSE_DEVICE"])
        if file.exists():
            file.unlink()
            _lost.append("an illegal memory access was encountered")
            raise RuntimeError(f"CUDA error: {_lost[0]}")
        return super().run(batch, prepared)


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """A backend, if the device of this process is not lost."""
    if _lost:
        raise RuntimeError(f"CUDA error: {_lost[0]}")
    backend = LosableBackend(len(stored.manifest.labels), batch_s=0.0)
    measured = decisions.setdefault("dtype", f"float{secrets.randbits(64)}")
    return LoadedBackend(backend, options.device, measured)
