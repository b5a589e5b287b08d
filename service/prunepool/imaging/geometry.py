"""Resize and crop, as timm's evaluation transform does. Only what the crop keeps is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunepool.imaging.resampling import INTERPOLATIONS, Box, Cut, resize_cut, size_of

#: A longer strip is cut to this many times its short side, and the centre crop shows only its centre.
_MAX_ASPECT = 8

#: How a picture that is not square becomes one, by timm's names.
CROP_MODES = ("center", "squash", "border")
#: Which pixel a centre between two pixels is at.
CROP_ROUNDINGS = ("even", "down")

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
        crop_pct: the crop's share of the side that is resized, above 0 and at most 1.
        interpolation: `bicubic`, `bilinear`, `lanczos` (all antialiased) or `nearest`.
        crop_mode: `center` resizes the short side and cuts the long one; `squash` resizes both sides alike,
            whatever their ratio; `border` resizes the long side and adds borders to the short one.
        border: red, green and blue of those borders, 0 to 255.
        crop_rounding: where a centre between two pixels is: `even`, at the even one, as timm and torchvision have
            it; `down`, at the first, as transformers has it.

    Raises:
        ValueError: a value is none of these.
    """

    size: int = 224
    crop_pct: float = 0.9
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    border: tuple[int, int, int] = (0, 0, 0)
    crop_rounding: str = "even"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel; got {self.size}")
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be above 0 and at most 1; got {self.crop_pct}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {self.interpolation!r}"
            )
        if self.crop_mode not in CROP_MODES:
            raise ValueError(f"crop_mode must be one of {', '.join(CROP_MODES)}; got {self.crop_mode!r}")
        if self.crop_rounding not in CROP_ROUNDINGS:
            raise ValueError(
                f"crop_rounding must be one of {', '.join(CROP_ROUNDINGS)}; got {self.crop_rounding!r}"
            )

    @property
    def resized_side(self) -> int:
        """Pixels after resizing, before the crop: of the short side, with `border` of the long one."""
        return math.floor(self.size / self.crop_pct)


def resize_and_crop(
    image: Image.Image | NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    scale: int = 1,
    full_size: tuple[int, int] | None = None,
    transposition: Image.Transpose | None = None,
) -> NDArray[np.uint8]:
    """Resize, turn upright, crop the centre.

    Args:
        image: RGB, as stored; or uint8 [height, width, 3].
        preprocess: the model's input.
        scale: the factor by which the decoder has reduced the image.
        full_size: width and height before that; None for the image's own.
        transposition: turns the image upright; None if it is.

    Returns:
        uint8, [size, size, 3], contiguous and writable.
    """
    width, height = full_size or size_of(image)
    # The other modes show all of a strip, and resize it to no more than the square.
    region = central_region(width, height) if preprocess.crop_mode == "center" else (0, 0, width, height)
    left, top, right, bottom = region
    resized = _resized_size(right - left, bottom - top, preprocess)
    # By the size before the reduction: a reduced image ends inside its last row and column.
    part = Box(left / scale, top / scale, (right - left) / scale, (bottom - top) / scale)
    extent = (min(resized[0], preprocess.size), min(resized[1], preprocess.size))
    cut = Cut(part, resized, _crop_corner(resized, extent, preprocess.crop_rounding, transposition), extent)
    return _framed(_turned(resize_cut(image, cut, preprocess.interpolation), transposition), preprocess)


def central_region(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part that is resized: all of it, except for very long strips."""
    longest = _MAX_ASPECT * min(width, height)
    cut_x, cut_y = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return cut_x, cut_y, width - cut_x, height - cut_y


def _resized_size(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    side = preprocess.resized_side
    if preprocess.crop_mode == "squash":
        return side, side
    if preprocess.crop_mode == "border":
        # Divide twice, round: in the order of timm's ResizeKeepRatio.
        ratio = max(width / side, height / side)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    # Multiply, divide, truncate: in the order of torchvision.
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _crop_corner(
    resized: tuple[int, int], extent: tuple[int, int], rounding: str, transposition: Image.Transpose | None
) -> tuple[int, int]:
    """Column and row, in the resized image as stored, of what is the centre crop once it is upright."""
    mirror_columns, mirror_rows, _ = _STEPS[transposition]
    # Rounded in the upright image: the centre may lie between two pixels.
    spare = (resized[0] - extent[0], resized[1] - extent[1])
    x, y = (one // 2 if rounding == "down" else round(one / 2) for one in spare)
    return (spare[0] - x if mirror_columns else x), (spare[1] - y if mirror_rows else y)


def _turned(crop: NDArray[np.uint8], transposition: Image.Transpose | None) -> NDArray[np.uint8]:
    mirror_columns, mirror_rows, exchange = _STEPS[transposition]
    crop = crop[:, ::-1] if mirror_columns else crop
    crop = crop[::-1] if mirror_rows else crop
    return np.ascontiguousarray(crop.transpose(1, 0, 2) if exchange else crop)


def _framed(crop: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """A crop with the borders that make it a square; one that is a square is returned as it is."""
    height, width, _ = crop.shape
    size = preprocess.size
    if height == width == size:
        return crop
    framed = np.empty((size, size, 3), np.uint8)
    framed[:] = preprocess.border
    top, left = (size - height) // 2, (size - width) // 2
    framed[top : top + height, left : left + width] = crop
    return framed
