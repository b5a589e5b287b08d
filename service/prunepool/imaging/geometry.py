"""Resize and centre crop, as timm's evaluation transform does. Only what the crop keeps is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunepool.imaging.resampling import INTERPOLATIONS, Box, Cut, resize_cut, size_of

#: A longer strip is cut to this many times its short side, and the centre crop shows only its centre.
_MAX_ASPECT = 8

_Turn = Image.Transpose
#: Each turn as three steps, in this order: mirror the columns, mirror the rows, exchange rows and columns.
_STEPS = {
    None: (False, False, False),
    _Turn.FLIP_LEFT_RIGHT: (True, False, False),
    _Turn.FLIP_TOP_BOTTOM: (False, True, False),
    _Turn.ROTATE_180: (True, True, False),
    _Turn.TRANSPOSE: (False, False, True),
    _Turn.ROTATE_90: (True, False, True),
    _Turn.ROTATE_270: (False, True, True),
    _Turn.TRANSVERSE: (True, True, True),
}


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
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {self.interpolation!r}"
            )

    @property
    def short_side(self) -> int:
        """Pixels of the short side after resizing, before the crop."""
        return math.floor(self.size / self.crop_pct)


def resize_and_crop(
    image: Image.Image | NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    scale: int = 1,
    full_size: tuple[int, int] | None = None,
    transposition: Image.Transpose | None = None,
) -> NDArray[np.uint8]:
    """Resize the short side, turn upright, crop the centre.

    Args:
        image: RGB, as stored; or uint8 [height, width, 3].
        preprocess: the model's input.
        scale: the factor by which the decoder has reduced the image.
        full_size: width and height before that; None for the image's own.
        transposition: turns the image upright; None if it is.

    Returns:
        uint8, [size, size, 3], contiguous and writable.
    """
    left, top, right, bottom = central_region(*(full_size or size_of(image)))
    resized = _resized_size(right - left, bottom - top, preprocess.short_side)
    # By the size before the reduction: a reduced image ends inside its last row and column.
    part = Box(left / scale, top / scale, (right - left) / scale, (bottom - top) / scale)
    cut = Cut(part, resized, _crop_corner(resized, preprocess.size, transposition), preprocess.size)
    return _turned(resize_cut(image, cut, preprocess.interpolation), transposition)


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


def _crop_corner(
    resized: tuple[int, int], size: int, transposition: Image.Transpose | None
) -> tuple[int, int]:
    """Column and row, in the resized image as stored, of what is the centre crop once it is upright."""
    mirror_columns, mirror_rows, _ = _STEPS[transposition]
    # Rounded in the upright image: the centre may lie between two pixels.
    spare = (resized[0] - size, resized[1] - size)
    x, y = round(spare[0] / 2), round(spare[1] / 2)
    return (spare[0] - x if mirror_columns else x), (spare[1] - y if mirror_rows else y)


def _turned(crop: NDArray[np.uint8], transposition: Image.Transpose | None) -> NDArray[np.uint8]:
    mirror_columns, mirror_rows, exchange = _STEPS[transposition]
    crop = crop[:, ::-1] if mirror_columns else crop
    crop = crop[::-1] if mirror_rows else crop
    return np.ascontiguousarray(crop.transpose(1, 0, 2) if exchange else crop)
