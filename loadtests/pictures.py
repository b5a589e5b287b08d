"""JPEGs to send, for whoever has no photos at hand."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def pictures(count: int = 16, size: int = 300) -> list[bytes]:
    """JPEGs of about 15 kB, made of smooth noise: as much work to decode as photos of their size."""
    source = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        coarse = Image.fromarray(source.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
        grain = smooth + source.integers(-12, 13, smooth.shape, dtype=np.int16)
        buffer = io.BytesIO()
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
        encoded.append(buffer.getvalue())
    return encoded
