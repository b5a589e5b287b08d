"""Open an untrusted image file: only known formats, within limits that its header decides.

Pillow's plugins are called directly, never through `Image.open`: each file is given to the one plugin of
its own signature, and its size is judged by the limit of the request, not by Pillow's process-wide one. The
other guards bound what a small file can make the plugins do, each against a case that was measured: scans
of a JPEG (each a pass over all pixels), strips and fractions of a TIFF (a Python object each), run
lengths in a BMP (decoded in Python), fax rows (a line in the log each), and headers of very many parts.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import NamedTuple

from PIL import ImageOps, TiffTags
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from prunepool.errors import ImageTooLarge, ImageUndecodable, UnsupportedMediaType
from prunepool.imaging.signatures import foreign_format

#: Longest side of any image: JPEG and GIF cannot be longer, and a row costs memory however short it is.
_MAX_SIDE = 65_535
#: A JPEG of the largest size may have this many scans, a smaller one proportionally more (encoders make 10).
_MAX_SCANS_AT_FULL_SIZE = 20
_MAX_JPEG_MARKERS = 20_000
#: Offsets (8 bytes at most) of one strip a row and plane of the longest image.
_MAX_TIFF_NUMBERS = 8 * 4 * _MAX_SIDE
#: By Pillow's names. Left out are fax (libtiff writes a line to stderr for each broken row) and what no
#: photo is stored in.
_TIFF_COMPRESSIONS = (
    "raw",
    "packbits",
    "tiff_lzw",
    "tiff_deflate",
    "tiff_adobe_deflate",
    "jpeg",
    "tiff_jpeg",
    "zstd",
)
_TIFF_BYTES = (TiffTags.BYTE, TiffTags.ASCII, TiffTags.UNDEFINED)
#: Reads that any file may take; each format has more in proportion to its length.
_BASE_READS = 5_000

_SERVED = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END_OF_IMAGE, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost.

    Attributes:
        max_pixels: width times height, as its header says.

    Raises:
        ValueError: a limit below one pixel.
    """

    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1; got {self.max_pixels}")


class _BoundedReader(io.BytesIO):
    """Bytes that may be read so many times: plugins parse headers in Python, part by part."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ImageUndecodable("the image file consists of too many small parts")
        return super().read(size)


class _JpegImageFile(JpegImageFile):
    """A JPEG whose metadata is read only for its orientation, and later."""

    def _read_dpi_from_exif(self) -> None:
        pass


class _TiffImageFile(TiffImageFile):
    """A TIFF whose tags are no longer than an image needs, and whose nested directories are not read."""

    def _setup(self) -> None:
        for tag, value in self.tag_v2._tagdata.items():
            if self.tag_v2.tagtype[tag] not in _TIFF_BYTES and len(value) > _MAX_TIFF_NUMBERS:
                raise ImageUndecodable(
                    f"tag {tag} of the TIFF image has {len(value):,} bytes of numbers; "
                    f"at most {_MAX_TIFF_NUMBERS:,} are read"
                )
        super()._setup()

    def load_end(self) -> None:
        ImageOps.exif_transpose(self, in_place=True)


class _Container(NamedTuple):
    name: str
    signatures: tuple[bytes, ...]
    plugin: type[ImageFile]
    bytes_per_read: int  # of the smallest parts that encoders write


_CONTAINERS = (
    _Container("JPEG", (b"\xff\xd8\xff",), _JpegImageFile, 1 << 16),
    _Container("PNG", (b"\x89PNG\r\n\x1a\n",), PngImageFile, 256),
    _Container("GIF", (b"GIF87a", b"GIF89a"), GifImageFile, 64),
    _Container("WebP", (b"RIFF",), WebPImageFile, 1 << 16),
    _Container("BMP", (b"BM",), BmpImageFile, 1 << 16),
    _Container("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _TiffImageFile, 64),
)


def open_image(data: bytes, limits: ImageLimits) -> ImageFile:
    """Open a file and judge its header; no pixel is decoded.

    Args:
        data: the whole file.
        limits: what it may cost.

    Returns:
        The image, not loaded.

    Raises:
        ImageUndecodable: empty, not an image, broken, or made to be costly.
        ImageTooLarge: more pixels than allowed.
        UnsupportedMediaType: a format, or a variant of one, that is not served.
        Exception: anything a Pillow plugin raises.
    """
    if not data:
        raise ImageUndecodable("the image is empty (0 bytes)")
    container = next((c for c in _CONTAINERS if data.startswith(c.signatures)), None)
    if container is None or (container.name == "WebP" and data[8:12] != b"WEBP"):
        if (name := foreign_format(data)) is not None:
            raise UnsupportedMediaType(f"{name} is not served; send {_SERVED}", found=name)
        raise ImageUndecodable(f"the {len(data):,} bytes are not a {_SERVED} image")
    if container.name == "WebP" and (size := _webp_size(data)) is not None:
        check_size(container.name, size, limits)  # opening allocates the canvas
    image = container.plugin(_BoundedReader(data, _BASE_READS + len(data) // container.bytes_per_read), "")
    check_size(container.name, image.size, limits)
    if container.name == "JPEG":
        _check_scans(data, image.size, limits)
    _check_compression(container.name, image)
    return image


def check_size(name: str, size: tuple[int, int], limits: ImageLimits) -> None:
    """Judge an image by its header.

    Raises:
        ImageTooLarge: more pixels than allowed, or a side longer than any format but strips has.
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


def _check_compression(name: str, image: ImageFile) -> None:
    if name == "BMP" and image.tile[0].codec_name == "bmp_rle":
        raise UnsupportedMediaType("run-length encoded BMP is not served; send it uncompressed", found=name)
    if name == "TIFF" and (compression := image.info["compression"]) not in _TIFF_COMPRESSIONS:
        raise UnsupportedMediaType(
            f"TIFF compressed by {compression} is not served; these are: {', '.join(_TIFF_COMPRESSIONS)}",
            found=name,
        )


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the canvas; None where the header is too short or unknown to say."""
    kind, head = data[12:16], data[20:30]
    if len(head) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return None


def _check_scans(data: bytes, size: tuple[int, int], limits: ImageLimits) -> None:
    pixels = size[0] * size[1]
    allowed = _MAX_SCANS_AT_FULL_SIZE * max(1, limits.max_pixels // pixels)
    # Thumbnails and chance make this count too high, never too low: the markers are walked only then.
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
