"""JPEGs decoded by libjpeg-turbo directly: Pillow's pixels, Pillow's verdicts, and Pillow for the rest."""

from __future__ import annotations

import io
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from prunepool.errors import ImageTooLarge, ImageUndecodable
from prunepool.imaging import ImageLimits, Preprocess, decode, decoding
from prunepool.imaging.containers import open_image
from prunepool.imaging.jpeg import decode_jpeg

PREPROCESS = Preprocess(size=32, crop_pct=1.0)
LIMITS = ImageLimits()
KINDS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "444": {"subsampling": 0},
    "422": {"subsampling": 1},
    "restarts": {"restart_marker_rows": 1},
    "optimised": {"optimize": True},
    "rgb": {"keep_rgb": True},
}


def encode(mode: str = "RGB", size: tuple[int, int] = (121, 83), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 4), np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.fixture
def only_fast() -> Iterator[None]:
    """Decoding that must not need Pillow."""

    def found(data: bytes, image: Image.Image) -> np.ndarray:
        pixels = decode_jpeg(data, image)
        assert pixels is not None, "left to Pillow"
        return pixels

    with patch.object(decoding, "decode_jpeg", found):
        yield


def by_pillow(data: bytes) -> np.ndarray:
    with patch.object(decoding, "decode_jpeg", lambda data, image: None):
        return decode(data, PREPROCESS, LIMITS)


@pytest.mark.usefixtures("only_fast")
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(121, 83), (400, 301)], ids=["whole", "drafted"])
def test_the_pixels_are_pillows(mode: str, kind: str, size: tuple[int, int]) -> None:
    data = encode(mode, size, **KINDS[kind])
    np.testing.assert_array_equal(decode(data, PREPROCESS, LIMITS), by_pillow(data))


@pytest.mark.usefixtures("only_fast")
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 1], ids=["no end", "half an end"])
def test_a_file_that_lacks_only_its_end_marker_is_decoded(mode: str, kind: str, kept: int) -> None:
    data = encode(mode, **KINDS[kind])
    found = decode(data[: len(data) - 2 + kept], PREPROCESS, LIMITS)
    np.testing.assert_array_equal(found, decode(data, PREPROCESS, LIMITS))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["baseline", "444", "restarts", "optimised"])
@pytest.mark.parametrize("cut", [4, 8, 40, 400])
def test_a_file_that_lacks_pixels_is_truncated(mode: str, kind: str, cut: int) -> None:
    with pytest.raises(ImageUndecodable, match="truncated"):
        decode(encode(mode, **KINDS[kind])[:-cut], PREPROCESS, LIMITS)


@pytest.mark.parametrize("size", [(121, 83), (400, 301)], ids=["whole", "drafted"])
def test_cmyk_is_left_to_pillow(size: tuple[int, int]) -> None:
    data = encode("CMYK", size)
    assert decode_jpeg(data, open_image(data, LIMITS)) is None
    assert decode(data, PREPROCESS, LIMITS).shape == (32, 32, 3)


@pytest.mark.parametrize("at", [0.4, 0.6, 0.9])
def test_damage_is_judged_by_pillow(at: float) -> None:
    data = bytearray(encode(size=(200, 200)))
    start = int(at * len(data))
    data[start : start + 60] = bytes(60)
    assert decode_jpeg(bytes(data), open_image(bytes(data), LIMITS)) is None
    np.testing.assert_array_equal(decode(bytes(data), PREPROCESS, LIMITS), by_pillow(bytes(data)))


def test_a_second_header_cannot_hide_a_larger_picture() -> None:
    """What Pillow and libjpeg find in different places is decoded by neither beyond the limit."""
    small, large = encode(size=(16, 16)), encode(size=(160, 160))
    frame = large[large.index(b"\xff\xc0") : large.index(b"\xff\xc4")]
    at = small.index(b"\xff\xc0")
    for data in (small[:at] + frame + small[at:], small[: at + 19] + frame + small[at + 19 :]):
        with pytest.raises((ImageTooLarge, ImageUndecodable)):
            decode(data, PREPROCESS, ImageLimits(1000))


@given(
    marker=st.sampled_from([*range(0xE0, 0xEE), 0xEF, 0xFE]),
    body=st.sampled_from(
        [b"", b"JFIF\0", b"JFXX\0", b"Exif\0\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0"]
    )
    | st.just(b"http://ns.adobe.com/xap/1.0/\0"),
    more=st.binary(max_size=60),
    fill=st.integers(0, 3),
)
def test_metadata_concerns_no_pixel(marker: int, body: bytes, more: bytes, fill: int) -> None:
    data = encode(size=(64, 48))
    assume(b"\x01\x12" not in more and b"\x12\x01" not in more)  # an orientation
    segment = (
        bytes([0xFF] * (1 + fill)) + bytes([marker]) + (2 + len(body + more)).to_bytes(2, "big") + body + more
    )
    found = decode(data[:2] + segment + data[2:], PREPROCESS, LIMITS)
    np.testing.assert_array_equal(found, decode(data, PREPROCESS, LIMITS))


@pytest.mark.parametrize("body", [b"Adobe", b"Adobe\0d\0\0\0\0", b"Adob"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_an_adobe_marker_that_is_cut_short_says_nothing(mode: str, body: bytes) -> None:
    data = encode(mode, size=(64, 48))
    segment = b"\xff\xee" + (2 + len(body)).to_bytes(2, "big") + body
    found = decode(data[:2] + segment + data[2:], PREPROCESS, LIMITS)
    np.testing.assert_array_equal(found, decode(data, PREPROCESS, LIMITS))


def test_a_long_header_of_metadata_is_read() -> None:
    """A colour profile in many pieces, and a preview in many more."""
    data = encode(size=(64, 48))
    pieces = b"".join(
        b"\xff\xe2" + (302).to_bytes(2, "big") + b"ICC_PROFILE\0" + bytes(288) for _ in range(600)
    )
    np.testing.assert_array_equal(
        decode(data[:2] + pieces + data[2:], PREPROCESS, LIMITS), decode(data, PREPROCESS, LIMITS)
    )
