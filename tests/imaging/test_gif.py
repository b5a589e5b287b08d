"""GIF: extensions concern no pixel, but for the one with the transparent colour; the canvas is white."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunepool.imaging import ImageLimits, Preprocess, decode, preprocess_image

PREPROCESS = Preprocess(size=16, crop_pct=1.0)
PALETTE = 13 + 3 * 256


def encode(**options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(256).save(buffer, "GIF", **options)
    return buffer.getvalue()


def crop(data: bytes) -> np.ndarray:
    return decode(data, PREPROCESS, ImageLimits())


def extension(label: int, blocks: list[bytes]) -> bytes:
    return b"!" + bytes([label]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def with_extension(data: bytes, added: bytes) -> bytes:
    assert data[10] & 0x87 == 0x87, "256 colours"
    return data[:PALETTE] + added + data[PALETTE:]


@given(
    label=st.sampled_from([0x01, 0xFE, 0xFF]) | st.integers(0, 255).filter(lambda label: label != 0xF9),
    blocks=st.lists(st.binary(min_size=1, max_size=30), max_size=4),
)
def test_extensions_concern_no_pixel(label: int, blocks: list[bytes]) -> None:
    data = encode()
    np.testing.assert_array_equal(crop(with_extension(data, extension(label, blocks))), crop(data))


@pytest.mark.parametrize("blocks", [[], [b"\1"], [b"\1\0\0"]])
def test_a_graphic_control_that_is_cut_short_says_nothing(blocks: list[bytes]) -> None:
    data = encode()
    np.testing.assert_array_equal(crop(with_extension(data, extension(0xF9, blocks))), crop(data))


def test_the_transparent_colour_is_read_behind_other_extensions() -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 9, 9, 9] + [0] * 762)
    buffer = io.BytesIO()
    image.save(buffer, "GIF", transparency=1, comment=b"hello")
    assert (crop(buffer.getvalue()) == 255).all()


def test_a_pillow_gif_gives_what_its_file_gives() -> None:
    """A first frame in the corner of its canvas."""
    data = bytearray(encode())
    data[6:10] = b"\x20\0\x20\0"
    found = crop(bytes(data))
    assert (found[-4:] == 255).all()
    np.testing.assert_array_equal(preprocess_image(Image.open(io.BytesIO(data)), PREPROCESS), found)
