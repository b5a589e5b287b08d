"""Decode bytes, or a Pillow image, into the model's crop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from prunepool.errors import ImageTooLarge, ImageUndecodable, PrunepoolError
from prunepool.imaging.containers import ImageLimits, open_image
from prunepool.imaging.geometry import Preprocess, resize_and_crop
from prunepool.imaging.jpeg import decode_jpeg
from prunepool.imaging.pixels import to_rgb, transposition

#: A JPEG decoded at a reduced scale has sides of at least this many times the resized one.
_DRAFT_FACTOR = 2


def decode(
    data: bytes, preprocess: Preprocess, limits: ImageLimits, *, draft: bool = True
) -> NDArray[np.uint8]:
    """Decode an image file into the model's crop; thread-safe.

    Args:
        data: the whole file: JPEG, PNG, WebP, GIF, BMP or TIFF.
        preprocess: the model's input.
        limits: on the image's cost.
        draft: whether to decode a JPEG that is much larger than needed at 1/2, 1/4 or 1/8 of its size: faster, with
            pixels that differ slightly from those of a full decode.

    Returns:
        uint8 RGB, [size, size, 3], contiguous.

    Raises:
        ImageUndecodable: the data is empty, not an image, truncated or broken.
        ImageTooLarge: the image has more pixels than allowed.
        UnsupportedMediaType: its format is not supported; the message names it if it is known.
    """
    with _pillow_errors_as_ours():
        image = open_image(data, limits)
        header_size = image.size
        scale = _draft(image, preprocess) if draft else 1
        pixels = decode_jpeg(data, image) if isinstance(image, JpegImageFile) else None
        if pixels is None:
            image.load()
        turn = transposition(image)
        rgb = to_rgb(image) if pixels is None else pixels
    full_size = header_size if scale > 1 else None
    return resize_and_crop(rgb, preprocess, scale=scale, full_size=full_size, transposition=turn)


def preprocess_image(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Convert a Pillow image of any mode into the model's crop, turned upright by its metadata.

    Args:
        image: one that the caller trusts; Pillow's errors are not translated.
        preprocess: the model's input.

    Returns:
        uint8 RGB, [size, size, 3], contiguous.

    Raises:
        ImageUndecodable: it has floating-point pixels, and none is finite.
    """
    image.load()
    return resize_and_crop(to_rgb(image), preprocess, transposition=transposition(image))


def _draft(image: Image.Image, preprocess: Preprocess) -> int:
    """Ask for a reduced scale of a large JPEG; return the factor by which it is reduced."""
    if not isinstance(image, JpegImageFile):
        return 1
    width = image.width
    least = _DRAFT_FACTOR * preprocess.resized_side
    drafted = image.draft(None, (least, least))
    return 1 if drafted is None else round(width / drafted[1][2])


@contextmanager
def _pillow_errors_as_ours() -> Iterator[None]:
    try:
        yield
    except PrunepoolError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(str(error)) from error
    except MemoryError as error:
        raise ImageTooLarge("decoding the image takes more memory than there is") from error
    except Exception as error:  # plugins raise nearly anything on bad input
        reason = str(error)[:200] or type(error).__name__
        raise ImageUndecodable(f"the image cannot be decoded: {reason}") from error
