"""Pixels that a caller has normalised, checked before they can reach a device."""

from __future__ import annotations

import numpy as np

from prunepool.core.types import Pixels
from prunepool.errors import InvalidParameter


def checked(pixels: Pixels, size: int) -> Pixels:
    """The same pixels, if a model of that input resolution can take them.

    Args:
        pixels: float32 [3, size, size], normalised; or uint8 [size, size, 3], a decoded crop.
        size: the input resolution, in pixels.

    Raises:
        InvalidParameter: another dtype, another shape, or a number that is not finite.
    """
    if pixels.dtype == np.uint8 and pixels.shape == (size, size, 3):
        return pixels
    shape = [3, size, size]
    if pixels.dtype != np.float32 or list(pixels.shape) != shape:
        got = f"{pixels.dtype} {list(pixels.shape)}"
        raise InvalidParameter("image", got, f"encoded bytes, or float32 of shape {shape}")
    finite = np.isfinite(pixels)
    if not finite.all():
        raise InvalidParameter("image", str(pixels[~finite][0]), "made of finite numbers only")
    return pixels
