"""Students, a teacher, and photos that can be told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunepool.lab.images import ImageSet
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """16 photos of noise, of 4 colours, which are their classes."""
    folder = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    files = []
    for i in range(16):
        pixels = np.clip(np.array(COLOURS[i % 4]) + rng.normal(0, 30, (100, 120, 3)), 0, 255)
        files.append(folder / f"{i:02}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(files[-1])
    return ImageSet(tuple(files), np.arange(16) % 4)


@pytest.fixture(scope="session")
def fresh(small_store: Path) -> Callable[[], LoadedModel]:
    """Loads the small model, a new one each time, for training changes it."""
    return lambda: load_model("small", store=small_store, device="cpu", dtype="float32")
