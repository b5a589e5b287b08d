"""JPEGs to send: those of a folder, or generated ones with the same decoding cost."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

_SUFFIXES = {".jpg", ".jpeg"}


def pictures(count: int = 16, size: int = 300, height: int | None = None) -> list[bytes]:
    """Generate JPEGs of smooth noise (about 15 kB at 300×300), which cost as much to decode as photos.

    Args:
        count: how many.
        size: pixels across.
        height: pixels down; as many, if not given.
    """
    source = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        coarse = Image.fromarray(source.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, height or size), Image.Resampling.BICUBIC), np.int16)
        grain = smooth + source.integers(-12, 13, smooth.shape, dtype=np.int16)
        buffer = io.BytesIO()
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        encoded.append(buffer.getvalue())
    return encoded


def photos(folder: Path | None) -> list[bytes]:
    """Return the JPEGs in and below a folder, by name; without a folder, generated ones of 500×375.

    Raises:
        FileNotFoundError: there are none.
    """
    if folder is None:
        return pictures(size=500, height=375)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise FileNotFoundError(f"there is no JPEG in {folder}")
    return [path.read_bytes() for path in found]
