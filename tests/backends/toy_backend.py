"""A whole backend in one small file, without torch: classifies by the mean brightness of patches.

Its package would register it in its `pyproject.toml`, so that `prunepool serve --device toy` uses it::

    [project.entry-points."prunepool.backends"]
    toy = "toy_backend:make"
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from prunepool.backends.registry import BackendOptions, Decisions, LoadedBackend
from prunepool.core.types import Batch, BatchItem, Output
from prunepool.store import StoredModel

#: A 14 × 14 grid of patches, of which a ratio drops the darkest.
GRID = 14
PATCHES = GRID * GRID


class ToyBackend:
    """Implements `prunepool.core.backend.Backend`.

    Args:
        classes: length of the logits.
        batch_s: how long a batch takes.
    """

    def __init__(self, classes: int, batch_s: float) -> None:
        self._classes = classes
        self._batch_s = batch_s

    def warm_up(self) -> None:
        """Nothing has to be warm."""

    def prepare(self, batch: Batch) -> object:
        """Brightness of every patch of every image, float32 [images, patches]."""
        return [_brightness(item.request.pixels) for item in batch.items]

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Drop the darkest patches of each image, as many as its ratio says, and sum up the others by class."""
        assert isinstance(prepared, list)
        time.sleep(self._batch_s)
        return [self._output(item, patches) for item, patches in zip(batch.items, prepared, strict=True)]

    def close(self) -> None:
        """Nothing is held."""

    def _output(self, item: BatchItem, patches: np.ndarray) -> Output:
        removed = math.floor(item.ratio * PATCHES)
        kept = np.where(np.argsort(np.argsort(patches, kind="stable")) >= removed, patches, 0.0)
        logits = np.bincount(np.arange(PATCHES) % self._classes, weights=kept).astype(np.float32)
        tokens = (1 + PATCHES, 1 + PATCHES - removed)
        return Output(logits=logits, tokens=tokens, gmacs=1e-9 * sum(tokens), pruned=removed)


def _brightness(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8:  # normalised already: channels first
        pixels = pixels.transpose(1, 2, 0)
    side = pixels.shape[0] // GRID
    patches = pixels[: side * GRID, : side * GRID].reshape(GRID, side, GRID, side, 3)
    return np.asarray(patches.mean(axis=(1, 3, 4), dtype=np.float32).ravel())


def make(stored: StoredModel, options: BackendOptions, decisions: Decisions) -> LoadedBackend:
    """A backend for a model of the store; of the model only the number of classes counts."""
    backend = ToyBackend(len(stored.manifest.labels), batch_s=0.02)
    return LoadedBackend(backend, options.device, "float32")
