"""Whatever the bytes, decoding gives the right shape or a `RequestError`: no other error, no crash."""

from __future__ import annotations

import io

import numpy as np
import pytest
from budget import examples
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from prunepool.errors import RequestError
from prunepool.imaging import ImageLimits, Preprocess, decode

# As in service: what Pillow warns of goes on, and its later errors are met too.
pytestmark = pytest.mark.filterwarnings("ignore")

PREPROCESS = Preprocess(size=16)
LIMITS = ImageLimits(100_000)

SIGNATURES = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\0\1\0\0WEBPVP8X",
    b"BM",
    b"II*\0",
    b"MM\0+",
]


def encode(mode: str, kind: str, **options: object) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 4), np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = image.convert("I")
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    if kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["exif"] = exif
    if options.get("save_all"):
        options["append_images"] = [image.rotate(90).convert(mode)]
    image.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


SEEDS = {
    "jpeg": encode("RGB", "JPEG"),
    "jpeg-progressive": encode("RGB", "JPEG", progressive=True, restart_marker_rows=1),
    "jpeg-grey": encode("L", "JPEG", optimize=True),
    "jpeg-cmyk": encode("CMYK", "JPEG"),
    "png": encode("RGB", "PNG"),
    "png-palette": encode("P", "PNG", transparency=bytes(range(100))),
    "png-alpha": encode("LA", "PNG"),
    "png-deep": encode("I;16", "PNG"),
    "png-animated": encode("RGB", "PNG", save_all=True),
    "gif": encode("P", "GIF", transparency=3, interlace=1),
    "gif-animated": encode("P", "GIF", save_all=True),
    "webp": encode("RGB", "WEBP"),
    "webp-lossless": encode("RGBA", "WEBP", lossless=True),
    "webp-animated": encode("RGBA", "WEBP", save_all=True),
    "bmp": encode("RGB", "BMP"),
    "bmp-palette": encode("P", "BMP"),
    "tiff": encode("RGB", "TIFF"),
    "tiff-lzw": encode("RGBA", "TIFF", compression="tiff_lzw", predictor=2),
    "tiff-jpeg": encode("RGB", "TIFF", compression="jpeg"),
    "tiff-deflate": encode("CMYK", "TIFF", compression="tiff_adobe_deflate"),
    "tiff-packbits": encode("1", "TIFF", compression="packbits"),
    "tiff-zstd": encode("RGB", "TIFF", compression="zstd"),
    "tiff-float": encode("F", "TIFF"),
    "tiff-pages": encode("L", "TIFF", save_all=True),
}


def answered(data: bytes) -> bool:
    """Whether the bytes were an image; anything but a crop or a `RequestError` fails the test."""
    try:
        crop = decode(data, PREPROCESS, LIMITS)
    except RequestError:
        return False
    assert crop.shape == (16, 16, 3)
    assert crop.dtype == np.uint8
    return True


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_are_images(name: str) -> None:
    assert answered(SEEDS[name])


@given(st.binary(max_size=2000))
@example(b"")
def test_random_bytes(data: bytes) -> None:
    answered(data)


@given(st.sampled_from(SIGNATURES), st.binary(max_size=2000))
@examples(2)
def test_random_bytes_behind_a_signature(signature: bytes, data: bytes) -> None:
    answered(signature + data)


@given(st.sampled_from(sorted(SEEDS)), st.floats(0, 1))
@examples(2)
def test_truncated_files(name: str, share: float) -> None:
    answered(SEEDS[name][: int(share * len(SEEDS[name]))])


@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 7)), min_size=1, max_size=8),
    st.booleans(),
)
@examples(4)
def test_flipped_bits(name: str, flips: list[tuple[int, int]], in_header: bool) -> None:
    data = bytearray(SEEDS[name])
    for at, bit in flips:
        data[at % (200 if in_header else len(data))] ^= 1 << bit
    answered(bytes(data))


@given(st.sampled_from(sorted(SEEDS)), st.integers(0, 400), st.binary(min_size=1, max_size=12))
@examples(3)
def test_overwritten_and_inserted_bytes(name: str, at: int, new: bytes) -> None:
    data = SEEDS[name]
    answered(data[:at] + new + data[at + len(new) :])
    answered(data[:at] + new + data[at:])
