"""From bytes, or from a Pillow image, to the model's crop."""

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
from prunepool.imaging.pixels import to_rgb, transposition

#: A JPEG decoded at a reduced scale keeps at least this many times the resized short side.
_DRAFT_FACTOR = 2


def decode(
    data: bytes, preprocess: Preprocess, limits: ImageLimits, *, draft: bool = True
) -> NDArray[np.uint8]:
    """Decode one image file into the model's crop; may be called from many threads at once.

    Args:
        data: the whole file: JPEG, PNG, WebP, GIF, BMP or TIFF.
        preprocess: what the model wants to see.
        limits: what the image may cost.
        draft: decode a JPEG much larger than needed at 1/2, 1/4 or 1/8 of its size. Faster, and the pixels
            differ a little from those of the full decode.

    Returns:
        uint8 RGB, [size, size, 3], contiguous.

    Raises:
        ImageUndecodable: empty, not an image, truncated or broken.
        ImageTooLarge: more pixels than allowed.
        UnsupportedMediaType: an image of a format that is not served, named where it is known.
    """
    with _pillow_errors_as_ours():
        image = open_image(data, limits)
        header_size = image.size
        scale = _draft(image, preprocess) if draft else 1
        image.load()
        turn = transposition(image)
        rgb = to_rgb(image)
    full_size = header_size if scale > 1 else rgb.size
    return resize_and_crop(rgb, preprocess, scale=scale, full_size=full_size, transposition=turn)


def preprocess_image(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The model's crop of a Pillow image of any mode, turned upright by its metadata.

    Args:
        image: one that the caller trusts; Pillow's own errors pass through.
        preprocess: what the model wants to see.

    Returns:
        uint8 RGB, [size, size, 3], contiguous.

    Raises:
        ImageUndecodable: floating-point pixels of which none is finite.
    """
    image.load()
    return resize_and_crop(to_rgb(image), preprocess, transposition=transposition(image))


def _draft(image: Image.Image, preprocess: Preprocess) -> int:
    """Have a large JPEG decoded at a reduced scale; by how much it is reduced."""
    if not isinstance(image, JpegImageFile):
        return 1
    width = image.width
    least = _DRAFT_FACTOR * preprocess.short_side
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
    except Exception as error:  # plugins raise nearly anything on bad input: none of it may cost a worker
        reason = str(error)[:200] or type(error).__name__
        raise ImageUndecodable(f"the image cannot be decoded: {reason}") from error
