"""Photos to try a conversion with: those that the page offers as samples, and their mirror images."""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def sample_photos(size: int) -> NDArray[np.uint8]:
    """Eight photos, uint8 RGB [8, size, size, 3].

    On photos the scores of tokens are spread as they are in service. White noise has many near ties, where the
    choice between two tokens depends on rounding.
    """
    folder = files("prunepool") / "api" / "static" / "samples"
    photos = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        photos.append(np.asarray(resized))
    pixels = np.stack(photos)
    return np.concatenate([pixels, pixels[:, :, ::-1]])
