"""TIFF in either byte order, compressed or not, and only whole."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from prunepool.errors import ImageUndecodable, UnsupportedMediaType
from prunepool.imaging import ImageLimits, Preprocess, decode

PREPROCESS = Preprocess(size=64, crop_pct=1.0)
RAW, DEFLATE = 1, 8
BLACK_IS_ZERO, RGB = 1, 2
_LONG = 4
_FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    order: str, strips: list[bytes], tags: dict[int, int | list[int]], rows_per_strip: int = 64
) -> bytes:
    """A TIFF of 64×64 pixels in a byte order, `<` or `>`."""
    entries: dict[int, int | list[int]] = {256: 64, 257: 64, 278: rows_per_strip}
    entries |= {279: [len(strip) for strip in strips], 273: [0] * len(strips)} | tags
    head = 8 + 2 + 12 * len(entries) + 4
    longs = sum(4 * len(v) for v in entries.values() if isinstance(v, list) and len(v) > 1)
    at = head + longs
    entries[273] = [at + sum(map(len, strips[:i])) for i in range(len(strips))]
    directory, behind = struct.pack(f"{order}H", len(entries)), b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) == 1:
            short = tag in (258, 259, 262, 274, 277, 284, 338, 339)
            directory += struct.pack(f"{order}HHI", tag, 3 if short else _LONG, 1)
            directory += struct.pack(f"{order}HH", values[0], 0) if short else packed
        else:
            directory += struct.pack(f"{order}HHII", tag, _LONG, len(values), head + len(behind))
            behind += packed
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", 8) + directory + bytes(4) + behind + b"".join(strips)


DEEP = [
    ("u2", [0, 64 * 257, 128 * 257, 65535], [0, 64, 128, 255]),
    ("i2", [-3000, -2000, 0, 1000], [0, 64, 191, 255]),
    ("u4", [0, 2**30, 2**31, 2**32 - 1], [0, 64, 128, 255]),
    ("i4", [-(2**31), -(2**30), 0, 2**31 - 1], [0, 64, 128, 255]),
    ("f4", [0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("photometric", [0, BLACK_IS_ZERO])
@pytest.mark.parametrize(("kind", "values", "expected"), DEEP, ids=[kind for kind, _, _ in DEEP])
def test_deep_grey_is_the_same_in_every_byte_order_and_compression(
    order: str, compression: int, photometric: int, kind: str, values: list[float], expected: list[int]
) -> None:
    rows = np.repeat(np.array([values], order + kind), 16, axis=1).repeat(64, axis=0).tobytes()
    tags = {258: int(kind[1]) * 8, 259: compression, 262: photometric, 277: 1, 339: _FORMATS[kind[0]]}
    strip = zlib.compress(rows) if compression == DEFLATE else rows
    found = decode(tiff(order, [strip], tags), PREPROCESS, ImageLimits())[32, [8, 24, 40, 56], 0]
    wanted = expected if photometric else [255 - level for level in expected]
    np.testing.assert_allclose(found.astype(int), wanted, atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_grey_without_a_stated_format_is_unsigned(order: str) -> None:
    rows = np.repeat(np.array([[0, 2**30, 2**31, 2**32 - 1]], f"{order}u4"), 16, axis=1).repeat(64, axis=0)
    data = tiff(order, [rows.tobytes()], {258: 32, 259: RAW, 262: BLACK_IS_ZERO, 277: 1})
    found = decode(data, PREPROCESS, ImageLimits())[32, [8, 24, 40, 56], 0]
    np.testing.assert_allclose(found.astype(int), [0, 64, 128, 255], atol=1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_strips_that_do_not_cover_the_picture_are_truncated(order: str, planes: int, kept: float) -> None:
    strips = [bytes([200]) * (16 * 64 * 3 // planes)] * (4 * planes)
    strips = strips[: int(kept * len(strips))]
    tags = {258: [8, 8, 8], 259: RAW, 262: RGB, 277: 3, 284: 2 if planes == 3 else 1}
    data = tiff(order, strips, tags, rows_per_strip=16)
    if kept == 1:
        assert (decode(data, PREPROCESS, ImageLimits()) == 200).all()
        return
    with pytest.raises(ImageUndecodable, match="truncated: it has"):
        decode(data, PREPROCESS, ImageLimits())


def test_a_form_that_is_not_read_is_refused_by_name() -> None:
    data = tiff("<", [bytes(64 * 64 * 8)], {258: 64, 259: RAW, 262: BLACK_IS_ZERO, 277: 1, 339: 3})
    with pytest.raises(UnsupportedMediaType, match="this form of TIFF is not served") as caught:
        decode(data, PREPROCESS, ImageLimits())
    assert caught.value.extra["found"] == "TIFF"


@pytest.mark.parametrize("orientation", [1, 3])
def test_xmp_of_another_type_than_bytes_concerns_no_pixel(orientation: int) -> None:
    tags: dict[int, int | list[int]] = {258: [8, 8, 8], 259: RAW, 262: RGB, 277: 3, 274: orientation}
    rows = bytes(64 * 96) + b"\xff" * (64 * 96)
    plain = decode(tiff("<", [rows], tags), PREPROCESS, ImageLimits())
    found = decode(tiff("<", [rows], tags | {700: [1, 2]}), PREPROCESS, ImageLimits())
    np.testing.assert_array_equal(found, plain)
    assert plain[0, 0, 0] == (255 if orientation == 3 else 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_separate_planes_are_the_same_in_every_depth_byte_order_and_compression(
    order: str, compression: int, bits: int, channels: int
) -> None:
    """The upper and the lower byte of a value differ."""
    values = [0x0A1B, 0x142C, 0x1E3D, 0xFFFF][:channels]
    planes = [
        np.full((64, 64), v if bits == 16 else v >> 8, f"{order}u{bits // 8}").tobytes() for v in values
    ]
    planes = [zlib.compress(plane) for plane in planes] if compression == DEFLATE else planes
    tags: dict[int, int | list[int]] = {
        258: [bits] * channels,
        259: compression,
        262: RGB,
        277: channels,
        284: 2,
    }
    found = decode(tiff(order, planes, tags | ({338: 2} if channels == 4 else {})), PREPROCESS, ImageLimits())
    np.testing.assert_array_equal(found, np.broadcast_to([10, 20, 30], found.shape))
