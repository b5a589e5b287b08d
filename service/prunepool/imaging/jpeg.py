"""JPEG files: their header by Pillow, and ordinary ones' pixels by libjpeg-turbo directly.

That is faster than through Pillow, and gives the same pixels. Pillow decodes everything else: CMYK, and files that
libjpeg-turbo warns of, because it tells a warning of a truncated file from others only by whether there is an end.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from prunepool.imaging.parts import too_many_parts

_START = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"
#: The longest metadata has up to 255 segments of a colour profile, and some of 64 KiB each of a preview.
_MAX_SEGMENTS = 2_000
_NO_END = "Premature end of JPEG file"
_START_OF_SCAN = 0xDA
#: Markers without a length: TEM, RST0 to RST7, SOI, EOI.
_ALONE = (0x01, *range(0xD0, 0xDA))
#: Markers whose segments concern no pixel, APP0 to APP15 and COM; but for these, which libjpeg and the orientation
#: need, from the length on that libjpeg recognises.
_METADATA = (*range(0xE0, 0xF0), 0xFE)
_NEEDED = (
    (0xE0, b"JFIF\0", 14),
    (0xE1, b"Exif\0\0", 0),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0", 0),
    (0xEE, b"Adobe", 12),
)


def open_jpeg(data: bytes) -> JpegImageFile:
    """Open a JPEG file; no pixel is decoded.

    Pillow refuses a whole file for metadata that is cut short, so it gets none but what is needed.

    Raises:
        ImageUndecodable: its header has more segments than allowed.
        Exception: whatever Pillow raises.
    """
    return _JpegImageFile(io.BytesIO(_without_metadata(data)), "")


class _JpegImageFile(JpegImageFile):
    """A JPEG whose metadata is read later, and only for its orientation."""

    def _read_dpi_from_exif(self) -> None:
        pass


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


def _without_metadata(data: bytes) -> bytes:
    kept, at = [_START], len(_START)
    for _ in range(_MAX_SEGMENTS):
        marker = at
        while data[marker : marker + 2] == b"\xff\xff":  # fill bytes
            marker += 1
        if data[marker : marker + 1] != b"\xff" or marker + 2 > len(data):
            break  # Pillow says what is wrong with it
        code = data[marker + 1]
        if code == _START_OF_SCAN:
            break
        end = (
            marker + 2
            if code in _ALONE
            else marker + 2 + int.from_bytes(data[marker + 2 : marker + 4], "big")
        )
        body = data[marker + 4 : end]
        if code not in _METADATA or any(
            code == needed and body.startswith(name) and len(body) >= length
            for needed, name, length in _NEEDED
        ):
            kept.append(data[marker:end])
        at = end
    else:
        raise too_many_parts()
    return b"".join((*kept, data[at:]))
