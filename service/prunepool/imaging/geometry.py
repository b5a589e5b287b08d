"""Resize and centre crop, pixel for pixel as timm's evaluation transform does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

#: A longer strip is cut to this many times its short side. Resizing all of it would need unbounded memory
#: (1×5000 pixels become 248×1,240,000), and the centre crop shows only its centre.
_MAX_ASPECT = 8


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The input that a model takes.

    Attributes:
        size: input resolution: height and width of the square crop, in pixels.
        crop_pct: the crop's share of the resized short side, above 0 and at most 1.
        interpolation: `bicubic`, `bilinear`, `lanczos` (all antialiased) or `nearest`.

    Raises:
        ValueError: a value is none of these.
    """

    size: int = 224
    crop_pct: float = 0.9
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel; got {self.size}")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be above 0 and at most 1; got {self.crop_pct}")
        if self.interpolation not in _RESAMPLING:
            raise ValueError(
                f"interpolation must be one of {', '.join(_RESAMPLING)}; got {self.interpolation!r}"
            )

    @property
    def short_side(self) -> int:
        """Pixels of the short side after resizing, before the crop."""
        return math.floor(self.size / self.crop_pct)


def resize_and_crop(
    image: Image.Image,
    preprocess: Preprocess,
    *,
    scale: int = 1,
    full_size: tuple[int, int] | None = None,
    transposition: Image.Transpose | None = None,
) -> NDArray[np.uint8]:
    """Resize the short side, turn upright, crop the centre.

    Args:
        image: RGB, as stored.
        preprocess: the model's input.
        scale: the factor by which the decoder has reduced the image.
        full_size: width and height before that; None for the image's own.
        transposition: turns the image upright; None if it is.

    Returns:
        uint8, [size, size, 3], contiguous and writable.
    """
    width, height = full_size or image.size
    left, top, right, bottom = central_region(width, height)
    resized = image.resize(
        _resized_size(right - left, bottom - top, preprocess.short_side),
        _RESAMPLING[preprocess.interpolation],
        # By the size before the reduction: a reduced image ends inside its last row and column.
        box=(left / scale, top / scale, right / scale, bottom / scale),
    )
    if transposition is not None:
        resized = resized.transpose(transposition)
    size = preprocess.size
    x, y = round((resized.width - size) / 2), round((resized.height - size) / 2)
    return np.array(resized.crop((x, y, x + size, y + size)))


def central_region(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part that is resized: all of it, except for very long strips."""
    longest = _MAX_ASPECT * min(width, height)
    cut_x, cut_y = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return cut_x, cut_y, width - cut_x, height - cut_y


def _resized_size(width: int, height: int, short: int) -> tuple[int, int]:
    # Multiply, divide, truncate: in the order of torchvision.
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short
