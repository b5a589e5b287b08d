"""Convert the pixels of any Pillow image to upright 8-bit RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.GifImagePlugin import GifImageFile

from prunepool.errors import ImageUndecodable
from prunepool.imaging.tiff import BITS, PHOTOMETRIC, SAMPLE_FORMAT, UNSIGNED, WHITE_IS_ZERO

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_VALUES_AT_ONCE = 1 << 20
#: Metadata is parsed in Python; cameras write less than 64 KiB of it.
_MAX_EXIF_BYTES = 1 << 20


def transposition(image: Image.Image) -> Image.Transpose | None:
    """The transposition that turns a loaded image upright, or None if it is.

    Pillow turns a TIFF itself when it loads it. An image with metadata that is broken or longer than 1 MiB counts
    as upright: viewers show such a photo too.
    """
    if len(image.info.get("exif") or b"") > _MAX_EXIF_BYTES:
        return None
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the metadata parsers raise nearly anything; the pixels are unaffected
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to 8-bit RGB, over white where it is transparent or, in a GIF, has no frame.

    Raises:
        ImageUndecodable: it has floating-point pixels, and none is finite.
    """
    rgb = _opaque(image)
    frame = image.dispose_extent if isinstance(image, GifImageFile) and image.tell() == 0 else None
    if frame is None or frame == (0, 0, *image.size):
        return rgb
    page = Image.new("RGB", image.size, "white")
    page.paste(rgb.crop(frame), frame)
    return page


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        # Pillow converts premultiplied grey to no mode but LA.
        translucent = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(translucent, (0, 0), translucent)
        return page
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Scale one channel of integers or floats to uint8 [height, width]; a transparent value becomes white."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if tags and tags.get(SAMPLE_FORMAT, UNSIGNED) == UNSIGNED and values.dtype == np.int32:
        values = values.view(np.uint32)  # Pillow has no unsigned 32 bits
    low, high = _range(values, twelve_bits=tags.get(BITS) == (12,))
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        low, high = high, low
    span = high - low or 1.0
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _VALUES_AT_ONCE // image.width)
    for start in range(0, image.height, rows):
        part = (values[start : start + rows].astype(np.float64) - low) * (255 / span)
        result[start : start + rows] = np.nan_to_num(part.clip(0, 255)).round()
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        result[values == transparent] = 255
    return result


def _range(values: NDArray[np.generic], *, twelve_bits: bool) -> tuple[float, float]:
    """The values that are mapped to black and to white."""
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return 0.0, 4095.0 if twelve_bits else 65535.0
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageUndecodable("none of the image's floating-point pixels is finite")
    low, high = float(values[finite].min()), float(values[finite].max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high
