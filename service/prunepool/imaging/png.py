"""PNG files as Pillow reads them, without three of its faults.

Pillow refuses a picture for a mistake in a chunk that concerns no pixel, such as its gamma or a comment. It
compares a transparent colour of another depth than 8 bits with the wrong values. And it shows a picture whose
compressed data ends early as black from there on.
"""

from __future__ import annotations

import io
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from prunepool.errors import ImageUndecodable
from prunepool.imaging.parts import too_many_parts

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: What pixels depend on. Pillow checks their checksums.
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
#: The texts that may hold the orientation.
_KEYWORDS = (b"XML:com.adobe.xmp", b"Raw profile type exif")
#: Metadata is parsed in Python; cameras write less than 64 KiB of it.
_MAX_METADATA = 1 << 20
_GREY, _RGB = 0, 2
_CHANNELS = {_GREY: 1, _RGB: 3, 3: 1, 4: 2, 6: 4}
#: Adam7: first column and row of each pass, and the steps from one to the next.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIXELS_AT_ONCE = 1 << 20
_BYTES_AT_ONCE = 1 << 20


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    def data_bytes(self) -> int:
        """Bytes of all rows, uncompressed, each with the byte that names its filter."""
        bits = self.depth * _CHANNELS.get(self.colour, 1)
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, across, down in passes:
            columns = max(0, -(-(self.width - left) // across))
            rows = max(0, -(-(self.height - top) // down))
            total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
        return total


class _Parts(NamedTuple):
    header: _Header | None
    transparency: bytes
    pixels: bytes  # compressed
    file: bytes  # with nothing but what concerns the picture


def open_png(data: bytes, max_chunks: int) -> PngImageFile:
    """Open a PNG file; no pixel is decoded.

    Raises:
        ImageUndecodable: it has more chunks than allowed, or something that is no chunk before its pixels.
        Exception: whatever Pillow raises.
    """
    return _PngImageFile(_parts(data, max_chunks))


class _PngImageFile(PngImageFile):
    """A picture whose ancillary chunks are left out, but for its orientation.

    An animation is left out too: the picture that every PNG starts with is the one of decoders that know none.
    """

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._key: tuple[int, ...] | None = None  # the transparent colour of 16-bit RGB
        super().__init__(io.BytesIO(parts.file), "")

    def _open(self) -> None:
        super()._open()
        header, key = self._parts.header, self.info.get("transparency")
        if header is None or key is None or header.colour not in (_GREY, _RGB):
            return
        stated = self._parts.transparency
        values = [
            int.from_bytes(stated[at : at + 2], "big") for at in range(0, 2 * _CHANNELS[header.colour], 2)
        ]
        most = (1 << header.depth) - 1
        if max(values) > most:
            del self.info["transparency"]  # no pixel has that value
        elif header.depth < 8:
            self.info["transparency"] = values[0] * 255 // most  # as Pillow scales the pixels
        elif header.colour == _RGB and header.depth == 16:
            del self.info["transparency"]
            self._key = tuple(values)

    def load_end(self) -> None:
        super().load_end()
        self._check_whole()
        if self._key is not None:
            self.paste("white", mask=self._transparent(self._key))

    def _check_whole(self) -> None:
        """Check that the compressed data had every row, which Pillow does not.

        Rows that were not decoded are zero. Only where the last one is, and in interlaced pictures, where rows come
        in another order, is the data counted.

        Raises:
            ImageUndecodable: it ended early.
        """
        header = self._parts.header
        if header is None:
            return
        last = self.crop((0, self.height - 1, self.width, self.height))
        if not header.interlaced and last.tobytes().strip(b"\0"):
            return
        wanted = header.data_bytes()
        found = _decompressed_bytes(self._parts.pixels, wanted)
        if found < wanted:
            raise ImageUndecodable(
                f"the PNG image is truncated: its pixels end after {found:,} of {wanted:,} bytes"
            )

    def _transparent(self, key: tuple[int, ...]) -> Image.Image:
        """The mask: 255 where a pixel has the transparent colour in all 16 bits. Pillow keeps the upper 8."""
        lower = PngImageFile(io.BytesIO(self._parts.file), "")
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        upper_key, lower_key = np.array(key) >> 8, np.array(key) & 255
        mask = Image.new("L", self.size)
        rows = max(1, _PIXELS_AT_ONCE // self.width)
        for top in range(0, self.height, rows):
            box = (0, top, self.width, min(top + rows, self.height))
            same = (np.asarray(self.crop(box)) == upper_key) & (np.asarray(lower.crop(box)) == lower_key)
            mask.paste(Image.fromarray(same.all(axis=2).astype(np.uint8) * 255), box)
        return mask


def _parts(data: bytes, max_chunks: int) -> _Parts:
    kept, pixels = [_SIGNATURE], list[bytes]()
    header, transparency = None, b""
    at, ended = len(_SIGNATURE), False
    for _ in range(max_chunks):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if len(kind) < 4 or kind == b"IEND":
            break
        if not kind.isalpha():
            if pixels:
                break
            raise ImageUndecodable(f"the PNG image has a chunk of the kind {kind!r}, which is none")
        body = data[at + 8 : end - 4]
        if kind == b"IDAT" and not ended:
            pixels.append(body)
        elif kind in _OF_PIXELS and not pixels:
            kept.append(data[at:end])
            if kind == b"IHDR" and len(body) >= 13:
                sides = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
                header = _Header(*sides, depth=body[8], colour=body[9], interlaced=body[12] != 0)
            elif kind == b"tRNS":
                transparency = body
        elif _has_orientation(kind, body) and data[end - 4 : end] == _checksum(kind, body):
            kept.append(data[at:end])
        ended = bool(pixels) and kind != b"IDAT"  # data behind another chunk is not the picture's
        at = end
    else:
        raise too_many_parts()
    compressed = b"".join(pixels)
    if pixels:
        kept.append(_chunk(b"IDAT", compressed))
    return _Parts(header, transparency, compressed, b"".join((*kept, _chunk(b"IEND", b""))))


def _has_orientation(kind: bytes, body: bytes) -> bool:
    """Whether a chunk may hold the orientation, and Pillow reads it without an error."""
    if kind == b"eXIf":
        return len(body) <= _MAX_METADATA
    if kind not in _TEXTS:
        return False
    keyword, _, rest = body.partition(b"\0")
    if keyword not in _KEYWORDS or len(body) > _MAX_METADATA:
        return False
    if kind == b"zTXt":
        return rest[:1] == b"\0" and _is_short(rest[1:])
    if kind == b"iTXt" and rest[:1] not in (b"", b"\0"):  # compressed
        return rest[1:2] == b"\0" and _is_short(rest[2:].split(b"\0", 2)[-1])
    return True


def _is_short(compressed: bytes) -> bool:
    """Whether it is compressed data, and not much when decompressed."""
    decompressor = zlib.decompressobj()
    try:
        decompressor.decompress(compressed, _MAX_METADATA)
    except zlib.error:
        return False
    return not decompressor.unconsumed_tail


def _decompressed_bytes(compressed: bytes, most: int) -> int:
    """The length of compressed data when decompressed, counted up to a limit; the limit if it is broken.

    Pillow itself refuses what is broken.
    """
    decompressor, total = zlib.decompressobj(), 0
    try:
        while compressed and total < most and not decompressor.eof:
            total += len(decompressor.decompress(compressed, min(_BYTES_AT_ONCE, most - total)))
            compressed = decompressor.unconsumed_tail
    except zlib.error:
        return most
    return total


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + _checksum(kind, body)


def _checksum(kind: bytes, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, "big")
