"""A rectangle out of a resized image, with the pixels that Pillow would give it.

Two implementations of the same sums: SIMD in `cykooz-resizer`, by the author of the Rust crate fast_image_resize,
where it is installed (it has no wheel for Linux on ARM); and Pillow's own. docs/decisions/0007-decoding.md has the
measurements.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    import cykooz_resizer as simd
except ModuleNotFoundError:
    simd = None

Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """A part of an image, in pixels of it; its edges may lie within pixels."""

    left: float
    top: float
    width: float
    height: float


class Cut(NamedTuple):
    """A rectangle out of a part of an image, once that part is resized.

    Attributes:
        part: of the image, all of it or its middle.
        resized: width and height that the part is resized to.
        corner: column and row in it at which the rectangle begins.
        extent: columns and rows of the rectangle.
    """

    part: Box
    resized: tuple[int, int]
    corner: tuple[int, int]
    extent: tuple[int, int]

    @property
    def steps(self) -> tuple[float, float]:
        """Pixels of the image for each column and for each row of the rectangle."""
        return self.part.width / self.resized[0], self.part.height / self.resized[1]

    @property
    def box(self) -> Box:
        """The rectangle's place in the image."""
        across, down = self.steps
        left, top = self.part.left + self.corner[0] * across, self.part.top + self.corner[1] * down
        return Box(left, top, self.extent[0] * across, self.extent[1] * down)


#: By name: Pillow's filter, cykooz-resizer's name of it, and its support at scale 1, in pixels on each side.
_FILTERS = {
    "bicubic": (Image.Resampling.BICUBIC, "catmull_rom", 2.0),
    "bilinear": (Image.Resampling.BILINEAR, "bilinear", 1.0),
    "lanczos": (Image.Resampling.LANCZOS, "lanczos3", 3.0),
}
#: Pixels of a Pillow image that are copied for cykooz-resizer. Copying holds Python's lock, and takes memory.
_MOST_COPIED = 1 << 22
_MOST_ADDED = 1 << 20
NEAREST = "nearest"
INTERPOLATIONS = (*_FILTERS, NEAREST)


def resize_cut(image: Image.Image | Pixels, cut: Cut, interpolation: str) -> Pixels:
    """Compute a rectangle of a resized image without the rest.

    Args:
        image: RGB; or uint8 [height, width, 3].
        cut: the rectangle.
        interpolation: one of :data:`INTERPOLATIONS`; all but `nearest` are antialiased.

    Returns:
        uint8 [rows, columns, 3], contiguous and writable.
    """
    if interpolation == NEAREST:
        return _nearest(image, cut)
    width, height = size_of(image)
    support, box = _FILTERS[interpolation][2], cut.box
    # The filter reaches beyond the rectangle, as it does where the whole image is resized.
    left, right = _reach(box.left, box.width, cut.extent[0], support, width)
    top, bottom = _reach(box.top, box.height, cut.extent[1], support, height)
    inside = Box(box.left - left, box.top - top, box.width, box.height)
    large = isinstance(image, Image.Image) and (right - left) * (bottom - top) > _MOST_COPIED
    resize = resize_with_pillow if large else _RESIZE
    return resize(_pixels(image, (left, top, right, bottom)), inside, cut.extent, interpolation)


def size_of(image: Image.Image | Pixels) -> tuple[int, int]:
    """Width and height."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def _reach(start: float, length: float, size: int, support: float, end: int) -> tuple[int, int]:
    """The pixels of one axis that a part of it is computed from: the first, and behind the last."""
    margin = support * max(1.0, length / size) + 1
    return max(0, math.floor(start - margin)), min(end, math.ceil(start + length + margin))


def _pixels(image: Image.Image | Pixels, box: tuple[int, int, int, int]) -> Image.Image | Pixels:
    if isinstance(image, Image.Image):
        return image if box == (0, 0, *image.size) else image.crop(box)
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def _nearest(image: Image.Image | Pixels, cut: Cut) -> Pixels:
    columns = _positions(cut.part.left, cut.steps[0], cut.corner[0], cut.extent[0])
    rows = _positions(cut.part.top, cut.steps[1], cut.corner[1], cut.extent[1])
    edges = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    near: Pixels = np.array(_pixels(image, edges))[rows - rows[0]][:, columns - columns[0]]
    return near


def _positions(start: float, step: float, first: int, count: int) -> NDArray[np.intp]:
    """The pixels of one axis that are nearest to those of the rectangle."""
    if first <= _MOST_ADDED:
        # Added up one by one, as Pillow does it: between two pixels, rounding decides.
        places = np.add.accumulate(np.array([start + step * 0.5, *[step] * (first + count - 1)]))[first:]
    else:
        places = start + step * (np.arange(first, first + count) + 0.5)
    return np.floor(places).astype(np.intp)


def resize_with_pillow(
    image: Image.Image | Pixels, box: Box, extent: tuple[int, int], interpolation: str
) -> Pixels:
    """Resize a box of an image that is no larger than it must be to columns and rows, by Pillow."""
    source = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    edges = (
        box.left,
        box.top,
        min(box.left + box.width, source.width),
        min(box.top + box.height, source.height),
    )
    return np.array(source.resize(extent, _FILTERS[interpolation][0], box=edges))


def resize_with_simd(
    image: Image.Image | Pixels, box: Box, extent: tuple[int, int], interpolation: str
) -> Pixels:
    """The same by cykooz-resizer.

    Rows first, then columns, each rounded to 8 bits, as Pillow does but for pictures much taller than wide. By
    itself the library starts with the columns. So does this for a picture that gets wider and lower: what lies
    between the two steps would be larger than both ends.
    """
    resizer = getattr(_of_thread, "resizer", None)
    if resizer is None:  # it holds buffers, which threads cannot share
        resizer = _of_thread.resizer = simd.Resizer()
    algorithm = simd.ResizeAlg.convolution(simd.FilterType[_FILTERS[interpolation][1]])
    width, height = size_of(image)
    columns, rows = extent
    pixels = simd.ImageData(width, height, simd.PixelType.U8x3, image.tobytes())
    across = (box.left, min(box.width, width - box.left))
    down = (box.top, min(box.height, height - box.top))
    columns_first = columns > box.width and rows < box.height
    for vertical in (True, False) if columns_first else (False, True):
        if vertical:
            part = simd.CropBox(0, down[0], pixels.width, down[1])
            resized = simd.ImageData(pixels.width, rows, simd.PixelType.U8x3)
        else:
            part = simd.CropBox(across[0], 0, across[1], pixels.height)
            resized = simd.ImageData(columns, pixels.height, simd.PixelType.U8x3)
        resizer.resize(pixels, resized, simd.ResizeOptions(algorithm, use_alpha=False, crop_box=part))
        pixels = resized
    return np.frombuffer(bytearray(pixels.get_buffer()), np.uint8).reshape(rows, columns, 3)


_of_thread = threading.local()
_RESIZE: Callable[[Image.Image | Pixels, Box, tuple[int, int], str], Pixels] = (
    resize_with_pillow if simd is None else resize_with_simd
)
