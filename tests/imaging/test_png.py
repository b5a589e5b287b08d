"""PNG files chunk by chunk: what concerns pixels is read in full, and nothing else can spoil them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunepool.errors import ImageUndecodable, RequestError
from prunepool.imaging import ImageLimits, Preprocess, decode

PREPROCESS = Preprocess(size=32, crop_pct=1.0)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: PNG's code of a colour type, and its channels.
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = (0, 1), (2, 3), (3, 1), (4, 2), (6, 4)


def chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", found)


def png(
    rows: bytes,
    size: tuple[int, int],
    *,
    depth: int = 8,
    colour: tuple[int, int] = RGB,
    interlaced: bool = False,
    before: bytes = b"",
) -> bytes:
    """A file of filtered rows, with chunks of any kind before the pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour[0], 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(range(3, 51))) if colour is PALETTE else b""
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return SIGNATURE + chunk(b"IHDR", header) + palette + before + pixels + chunk(b"IEND", b"")


def crop(data: bytes) -> np.ndarray:
    return decode(data, PREPROCESS, ImageLimits())


def adam7_bytes(width: int, height: int, bits: int) -> list[int]:
    """Bytes of each pass, written down from the specification's table of passes."""
    passes = ["1 6 4 6 2 6 4 6", "7 7 7 7 7 7 7 7", "5 6 5 6 5 6 5 6", "7 7 7 7 7 7 7 7"]
    passes += ["3 6 4 6 3 6 4 6", "7 7 7 7 7 7 7 7", "5 6 5 6 5 6 5 6", "7 7 7 7 7 7 7 7"]
    table = [line.split() for line in passes]
    found = []
    for number in "1234567":
        counts = [sum(table[y % 8][x % 8] == number for x in range(width)) for y in range(height)]
        found.append(sum(1 + (count * bits + 7) // 8 for count in counts if count))
    return found


LAYOUTS = [(1, GREY), (2, GREY), (4, GREY), (8, GREY), (16, GREY), (8, RGB), (16, RGB)]
LAYOUTS += [(1, PALETTE), (4, PALETTE), (8, PALETTE), (8, GREY_ALPHA), (16, GREY_ALPHA), (8, RGB_ALPHA)]


@pytest.mark.parametrize(("depth", "colour"), LAYOUTS)
@pytest.mark.parametrize("interlaced", [False, True])
@given(width=st.integers(1, 20), height=st.integers(1, 20))
def test_a_black_picture_is_whole_and_one_byte_less_is_not(
    depth: int, colour: tuple[int, int], interlaced: bool, width: int, height: int
) -> None:
    """Black, so that what is missing would look like what is there."""
    bits = depth * colour[1]
    length = sum(adam7_bytes(width, height, bits)) if interlaced else height * (1 + (width * bits + 7) // 8)
    options = {"depth": depth, "colour": colour, "interlaced": interlaced}
    assert crop(png(bytes(length), (width, height), **options)).shape == (32, 32, 3)
    with pytest.raises(ImageUndecodable, match="truncated"):
        crop(png(bytes(length - 1), (width, height), **options))


@pytest.mark.parametrize("interlaced", [False, True])
@given(share=st.floats(0, 0.999))
def test_compressed_data_that_ends_early_is_truncated(interlaced: bool, share: float) -> None:
    length = sum(adam7_bytes(40, 30, 24)) if interlaced else 30 * 121
    rows = bytes([0]) + bytes(range(1, 121))
    rows = b"\0" * length if interlaced else rows * 30
    with pytest.raises(ImageUndecodable, match="truncated"):
        crop(png(rows[: int(share * length)], (40, 30), interlaced=interlaced))


def test_data_behind_the_last_row_is_ignored() -> None:
    rows = (b"\0" + b"\x07" * 96) * 32
    np.testing.assert_array_equal(crop(png(rows + b"more", (32, 32))), 7)


def test_data_behind_another_chunk_is_not_the_pictures() -> None:
    packed = zlib.compress((b"\0" + b"\x07" * 96) * 32, 0)
    whole = png(b"", (32, 32))
    start = whole.index(b"IDAT") - 4
    halves = chunk(b"IDAT", packed[:1000]) + chunk(b"teSt", b"") + chunk(b"IDAT", packed[1000:])
    with pytest.raises(ImageUndecodable, match="truncated"):
        crop(whole[:start] + halves + whole[-12:])


ROWS = (b"\0" + bytes([200, 30, 40]) * 32) * 32


@given(
    kind=st.sampled_from(
        [b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"tIME", b"bKGD", b"sBIT", b"hIST", b"sPLT"]
    )
    | st.sampled_from(
        [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"cICP", b"mDCv", b"abCd"]
    ),
    body=st.binary(max_size=80)
    | st.sampled_from([b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"]).flatmap(
        lambda keyword: st.binary(max_size=60).map(keyword.__add__)
    ),
    checksum=st.none() | st.integers(0, 2**32 - 1),
    behind=st.booleans(),
)
def test_no_ancillary_chunk_spoils_the_pixels(
    kind: bytes, body: bytes, checksum: int | None, behind: bool
) -> None:
    extra = chunk(kind, body, checksum=checksum)
    data = png(ROWS, (32, 32), before=b"" if behind else extra)
    if behind:
        data = data[:-12] + extra + data[-12:]
    np.testing.assert_array_equal(crop(data), np.broadcast_to([200, 30, 40], (32, 32, 3)))


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\1\0"])
def test_a_transparent_colour_that_is_cut_short_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        crop(png(ROWS, (32, 32), before=chunk(b"tRNS", body)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@given(data=st.data())
def test_grey_is_transparent_where_it_equals_the_key(depth: int, data: st.DataObject) -> None:
    most = (1 << depth) - 1
    value = data.draw(st.integers(0, most))
    key = data.draw(st.just(value) | st.integers(0, 65535))
    bits = format(value, f"0{depth}b") * 16
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    found = crop(
        png(row * 16, (16, 16), depth=depth, colour=GREY, before=chunk(b"tRNS", struct.pack(">H", key)))
    )
    expected = 255 if key == value else round(value * 255 / most)
    assert np.abs(found.astype(int) - expected).max() <= (1 if depth == 16 else 0)


@given(
    pixel=st.tuples(*[st.integers(0, 65535)] * 3),
    flip=st.none() | st.tuples(st.integers(0, 2), st.integers(0, 15)),
)
def test_deep_colours_are_compared_in_all_their_bits(
    pixel: tuple[int, int, int], flip: tuple[int, int] | None
) -> None:
    key = list(pixel)
    if flip is not None:
        key[flip[0]] ^= 1 << flip[1]
    row = b"\0" + struct.pack(">3H", *pixel) * 16
    found = crop(png(row * 16, (16, 16), depth=16, before=chunk(b"tRNS", struct.pack(">3H", *key))))
    expected = [255] * 3 if flip is None else [value >> 8 for value in pixel]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_deep_transparency_in_part_of_a_large_picture() -> None:
    """More rows than are compared at once."""
    row, clear = struct.pack(">3H", 1, 2, 3) * 1100, struct.pack(">3H", 1, 2, 4) * 1100
    data = png((b"\0" + row) * 1000 + (b"\0" + clear) * 100, (1100, 1100), depth=16)
    start = data.index(b"IDAT") - 4
    found = crop(data[:start] + chunk(b"tRNS", struct.pack(">3H", 1, 2, 4)) + data[start:])
    assert (found[:28] == 0).all()
    assert (found[30:] == 255).all()


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'


def text(kind: str, words: bytes) -> bytes:
    keyword = b"XML:com.adobe.xmp\0"
    if kind == "plain":
        return chunk(b"iTXt", keyword + b"\0\0\0\0" + words)
    return chunk(b"iTXt", keyword + b"\1\0\0\0" + zlib.compress(words))


@pytest.mark.parametrize("kind", ["plain", "compressed"])
def test_orientation_in_xmp_is_honoured(kind: str) -> None:
    rows = (b"\0" + bytes(96)) * 16 + (b"\0" + b"\xff" * 96) * 16
    assert crop(png(rows, (32, 32)))[0, 0, 0] == 0
    assert crop(png(rows, (32, 32), before=text(kind, XMP)))[0, 0, 0] == 255


@pytest.mark.parametrize("kind", ["plain", "compressed"])
def test_overlong_xmp_is_not_read(kind: str) -> None:
    rows = (b"\0" + bytes(96)) * 16 + (b"\0" + b"\xff" * 96) * 16
    assert crop(png(rows, (32, 32), before=text(kind, XMP + bytes(2 << 20))))[0, 0, 0] == 0


def test_orientation_with_a_wrong_checksum_is_not_read() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    buffer = io.BytesIO()
    picture = Image.new("L", (32, 32))
    picture.paste(255, (0, 16, 32, 32))
    picture.save(buffer, "PNG", exif=exif)
    data = bytearray(buffer.getvalue())
    assert crop(bytes(data))[0, 0, 0] == 255
    end = data.index(b"eXIf") + 4 + struct.unpack(">I", data[data.index(b"eXIf") - 4 :][:4])[0]
    data[end] ^= 1
    assert crop(bytes(data))[0, 0, 0] == 0


def test_an_animation_shows_the_picture_of_decoders_that_know_none() -> None:
    frame = struct.pack(">IIIIIHHBB", 0, 32, 32, 0, 0, 1, 10, 0, 0)
    before = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", frame)
    np.testing.assert_array_equal(crop(png(ROWS, (32, 32), before=before))[5, 5], [200, 30, 40])
