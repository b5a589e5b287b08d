"""Open an untrusted image file: known formats only, within limits that are checked in its header.

Pillow's plugins are called directly, not through `Image.open`: a file goes only to the plugin of its signature, and
its size is checked against the request's limit instead of Pillow's process-wide one. The other checks bound the
work that a small file can cause in a plugin; each is against a case that was measured: scans of a JPEG (each is a
pass over all pixels), strips and fractions of a TIFF (each is a Python object), run lengths in a BMP (decoded in
Python), fax rows (each logs a line), and headers of very many parts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.WebPImagePlugin import WebPImageFile

from prunepool.errors import ImageTooLarge, ImageUndecodable, UnsupportedMediaType
from prunepool.imaging import webp
from prunepool.imaging.gif import open_gif
from prunepool.imaging.jpeg import open_jpeg
from prunepool.imaging.parts import too_many_parts
from prunepool.imaging.png import open_png
from prunepool.imaging.signatures import foreign_format
from prunepool.imaging.tiff import BoundedTiffImageFile

#: Longest side of any image: JPEG and GIF allow no more, and even a very short row costs memory.
_MAX_SIDE = 65_535
#: Scans allowed in a JPEG of the largest size; a smaller one may have proportionally more (encoders write 10).
_MAX_SCANS_AT_FULL_SIZE = 20
_MAX_JPEG_MARKERS = 20_000
#: Parts allowed in any file; each format may have more in proportion to the file's length.
_BASE_PARTS = 5_000

_SERVED = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on the cost of decoding an image.

    Attributes:
        max_pixels: the largest width × height, as stated in the header.

    Raises:
        ValueError: the limit is below one pixel.
    """

    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1; got {self.max_pixels}")

    @property
    def max_bytes(self) -> int:
        """A file of more bytes cannot be an image within the limit: 8 bytes a pixel, and 64 MiB of metadata."""
        return 8 * self.max_pixels + (64 << 20)


class _BoundedReader(io.BytesIO):
    """Bytes with a limited number of reads: plugins parse headers in Python, part by part."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise too_many_parts()
        return super().read(size)


class _TiffImageFile(BoundedTiffImageFile):
    #: Bytes of the strip offsets of the longest image: 8 for each row of each of 4 planes.
    max_numbers = 8 * 4 * _MAX_SIDE


def _by_plugin(plugin: type[ImageFile]) -> Callable[[bytes, int], ImageFile]:
    return lambda data, reads: plugin(_BoundedReader(data, reads), "")


class _Container(NamedTuple):
    name: str
    signatures: tuple[bytes, ...]
    open: Callable[[bytes, int], ImageFile]  # the file, and the parts that it may have
    bytes_per_part: int  # of the smallest parts that encoders write


_CONTAINERS = (
    _Container("JPEG", (b"\xff\xd8\xff",), lambda data, _: open_jpeg(data), 1 << 16),
    _Container("PNG", (b"\x89PNG\r\n\x1a\n",), open_png, 256),
    _Container("GIF", (b"GIF87a", b"GIF89a"), open_gif, 64),
    _Container("WebP", (b"RIFF",), _by_plugin(WebPImageFile), 1 << 16),
    _Container("BMP", (b"BM",), _by_plugin(BmpImageFile), 1 << 16),
    _Container("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _by_plugin(_TiffImageFile), 64),
)


def open_image(data: bytes, limits: ImageLimits) -> ImageFile:
    """Open a file and check its header; no pixel is decoded.

    Args:
        data: the whole file.
        limits: on its cost.

    Returns:
        The image, not loaded.

    Raises:
        ImageUndecodable: the file is empty, not an image, broken, or crafted to be costly.
        ImageTooLarge: it has more pixels than allowed.
        UnsupportedMediaType: its format, or the variant of it, is not supported.
        Exception: whatever a Pillow plugin raises.
    """
    if not data:
        raise ImageUndecodable("the image is empty (0 bytes)")
    container = next((c for c in _CONTAINERS if data.startswith(c.signatures)), None)
    if container is None or (container.name == "WebP" and data[8:12] != b"WEBP"):
        if (name := foreign_format(data)) is not None:
            raise UnsupportedMediaType(f"{name} is not served; send {_SERVED}", found=name)
        raise ImageUndecodable(f"the {len(data):,} bytes are not a {_SERVED} image")
    if container.name == "WebP":
        if (size := webp.canvas_size(data)) is not None:
            check_size(container.name, size, limits)  # opening allocates the canvas
        data = webp.with_transparent_canvas(data)
    image = container.open(data, _BASE_PARTS + len(data) // container.bytes_per_part)
    check_size(container.name, image.size, limits)
    if container.name == "JPEG":
        _check_scans(data, image.size, limits)
    if container.name == "BMP" and image.tile[0].codec_name == "bmp_rle":
        raise UnsupportedMediaType("run-length encoded BMP is not served; send it uncompressed", found="BMP")
    return image


def check_size(name: str, size: tuple[int, int], limits: ImageLimits) -> None:
    """Check the size of an image, as stated in its header.

    Raises:
        ImageTooLarge: it has more pixels than allowed, or a side is too long.
    """
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"the {name} image has {width}×{height} = {width * height:,} pixels; "
            f"the limit is {limits.max_pixels:,}",
            pixels=width * height,
            limit=limits.max_pixels,
        )
    if max(size) > _MAX_SIDE:
        raise ImageTooLarge(
            f"the {name} image is {width}×{height} pixels; no side may be longer than {_MAX_SIDE:,}",
            pixels=width * height,
            limit=limits.max_pixels,
        )


def _check_scans(data: bytes, size: tuple[int, int], limits: ImageLimits) -> None:
    pixels = size[0] * size[1]
    allowed = _MAX_SCANS_AT_FULL_SIZE * max(1, limits.max_pixels // pixels)
    # Thumbnails and chance can make this count too high, never too low: only then are the markers parsed.
    if data.count(bytes((0xFF, _START_OF_SCAN))) <= allowed:
        return
    scans, at = 0, 2
    for _ in range(_MAX_JPEG_MARKERS):
        found = _JPEG_MARKER.search(data, at)
        if found is None or found[1][0] == _END_OF_IMAGE:
            return
        marker, at = found[1][0], found.end()
        if marker not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2], "big")
        scans += marker == _START_OF_SCAN
        if scans > allowed:
            break
    raise ImageUndecodable(
        f"the JPEG image has more than {allowed:,} scans, the most that are decoded of {pixels:,} pixels"
    )
