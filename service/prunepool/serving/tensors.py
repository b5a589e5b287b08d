"""Pixels that a caller has normalised, checked before they can reach a device."""

from __future__ import annotations

import numpy as np

from prunepool.core.types import Pixels
from prunepool.errors import InvalidParameter

#: Normalised pixels are within ±3, and within ±255 where a model's are not scaled. Large numbers overflow inside a
#: network, which then answers with none.
_LARGEST = 1000


def checked(pixels: Pixels, size: int) -> Pixels:
    """The same pixels, if a model of that input resolution can take them.

    Args:
        pixels: float32 [3, size, size], normalised; or uint8 [size, size, 3], a decoded crop.
        size: the input resolution, in pixels.

    Raises:
        InvalidParameter: another dtype, another shape, or a number that is not finite or that would overflow.
    """
    if pixels.dtype == np.uint8 and pixels.shape == (size, size, 3):
        return pixels
    shape = [3, size, size]
    if pixels.dtype != np.float32 or list(pixels.shape) != shape:
        got = f"{pixels.dtype} {list(pixels.shape)}"
        raise InvalidParameter("image", got, f"encoded bytes, or float32 of shape {shape}")
    fits = np.abs(pixels) <= _LARGEST  # not a number fits nowhere
    if not fits.all():
        limit = f"made of normalised numbers, from -{_LARGEST} to {_LARGEST}"
        raise InvalidParameter("image", str(pixels[~fits][0]), limit)
    return pixels
