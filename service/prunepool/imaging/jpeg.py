"""The pixels of an ordinary JPEG, by libjpeg-turbo directly: faster than through Pillow, and the same ones.

Pillow reads the header and decodes everything else: CMYK, and files that libjpeg-turbo warns of, because it tells a
warning of a truncated file from others only by whether there is an end.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

_END_OF_IMAGE = b"\xff\xd9"
_NO_END = "Premature end of JPEG file"


def decode_jpeg(data: bytes, image: JpegImageFile) -> NDArray[np.uint8] | None:
    """Decode grey and three-channel pixels.

    A file that lacks nothing but its end marker is decoded too: with the marker appended, there must be no warning.

    Args:
        data: the file.
        image: its header; if it was drafted, the pixels are of the reduced size.

    Returns:
        uint8 RGB [height, width, 3]; None if the file must be left to Pillow.
    """
    if image.mode not in ("RGB", "L"):
        return None
    width, height = image.size
    try:
        # Checked against the limits was the size that Pillow found.
        stated = simplejpeg.decode_jpeg_header(data, height, width, strict=False)[:2]
    except ValueError:
        return None
    if tuple(stated) != (height, width):
        return None
    for file in (data, data + _END_OF_IMAGE):
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(file, min_height=height, min_width=width)
        except ValueError as warning:
            if file is data and str(warning) == _NO_END:
                continue
            return None
        return pixels
    return None
