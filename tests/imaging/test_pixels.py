"""Whatever is stored, the crop shows what a person would see."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from prunepool.errors import ImageUndecodable
from prunepool.imaging import ImageLimits, Preprocess, decode, preprocess_image

PREPROCESS = Preprocess(size=32, crop_pct=1.0)
LIMITS = ImageLimits()

#: How a picture is stored whose tag says that it must be turned so.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION = 0x0112


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def crop(data: bytes, **options: bool) -> np.ndarray:
    return decode(data, PREPROCESS, LIMITS, **options)


def tiff(image: np.ndarray, *, bits: int, channels: int = 1, **tags: int) -> bytes:
    """A little-endian TIFF of one or two channels, packed as `image` is, [height, bytes or values a row]."""
    data = image.tobytes()
    width = len(data) * 8 // (len(image) * bits * channels)
    entries = {256: width, 257: len(image), 258: bits, 259: 1, 262: tags.get("photometric", 1), 273: 150}
    entries |= {277: channels, 278: len(image), 279: len(data)}
    entries |= {338: tags["alpha"]} if "alpha" in tags else {339: tags.get("sample_format", 1)}
    directory = struct.pack("<H", len(entries))
    for tag, value in entries.items():
        if tag == 258:
            directory += struct.pack("<HHIHH", tag, 3, channels, bits, bits if channels > 1 else 0)
        else:
            directory += struct.pack("<HHII", tag, 4, 1, value)
    return (b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)).ljust(150, b"\0") + data


def quarters(width: int, height: int) -> Image.Image:
    """Four colours, so that no turn or flip looks like another."""
    image = Image.new("RGB", (width, height))
    for i, colour in enumerate(["red", "lime", "blue", "yellow"]):
        image.paste(
            colour, (i % 2 * width // 2, i // 2 * height // 2, width, height if i > 1 else height // 2)
        )
    return image


def with_orientation(image: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turn = STORED[orientation]
    return (image if turn is None else image.transpose(turn)), exif


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("JPEG", {"quality": 95})]
)
def test_orientation_is_honoured(kind: str, options: dict[str, object], orientation: int) -> None:
    picture = quarters(96, 64)
    stored, exif = with_orientation(picture, orientation)
    found = crop(encode(stored, kind, exif=exif, **options)).astype(int)
    assert np.abs(found - preprocess_image(picture, PREPROCESS)).mean() < 3


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_honoured_in_draft_mode(orientation: int) -> None:
    picture = quarters(1001, 603)
    stored, exif = with_orientation(picture, orientation)
    data = encode(stored, "JPEG", quality=95, exif=exif)
    assert np.abs(crop(data).astype(int) - preprocess_image(picture, PREPROCESS)).mean() < 3


def test_orientation_behind_the_pixels_of_a_png_is_honoured() -> None:
    stored, exif = with_orientation(quarters(96, 64), 6)
    plain, chunk = encode(stored, "PNG"), b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    end = plain.rindex(b"IEND") - 4
    late = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    found = crop(plain[:end] + late + plain[end:])
    np.testing.assert_array_equal(found, crop(encode(stored, "PNG", exif=exif)))
    assert not np.array_equal(found, crop(plain))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01", b"Exif\0\0" + bytes(40)]
)
def test_broken_metadata_means_upright(exif: bytes) -> None:
    picture = quarters(96, 64)
    np.testing.assert_array_equal(crop(encode(picture, "JPEG", exif=exif)), crop(encode(picture, "JPEG")))


def test_orientation_in_overlong_metadata_is_not_read() -> None:
    picture = quarters(96, 64)
    stored, exif = with_orientation(picture, 3)
    exif[0x010E] = "x" * (1 << 20)
    np.testing.assert_array_equal(crop(encode(stored, "PNG", exif=exif)), crop(encode(stored, "PNG")))


def test_opaque_alpha_changes_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    plain, opaque = Image.fromarray(noise), Image.fromarray(noise).convert("RGBA")
    np.testing.assert_array_equal(crop(encode(opaque, "PNG")), crop(encode(plain, "PNG")))


def translucent(mode: str) -> Image.Image:
    """Black at alpha 0, 128 and 255, in three columns."""
    alpha = Image.fromarray(np.repeat(np.array([[0, 128, 255]], np.uint8), 32, axis=1).repeat(96, axis=0))
    image = Image.new("RGBA", alpha.size, "black")
    image.putalpha(alpha)
    if mode == "PA":
        palette = Image.new("P", alpha.size)
        palette.putpalette([0, 0, 0])
        palette.putalpha(alpha)
        return palette
    return image.convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("TIFF", "RGBA", {}),
        ("TIFF", "LA", {}),
        ("TIFF", "PA", {}),
    ],
)
def test_transparency_is_over_white(kind: str, mode: str, options: dict[str, object]) -> None:
    found = crop(encode(translucent(mode), kind, **options))
    np.testing.assert_allclose(found[:, [2, 16, 29]].astype(int).mean(axis=(0, 2)), [255, 127, 0], atol=1)


def test_premultiplied_alpha_is_over_white() -> None:
    """A grey of 64 at alpha 128, stored as 32."""
    rows = np.tile(np.array([32, 128], np.uint8), (20, 20))
    found = crop(tiff(rows, bits=8, channels=2, alpha=1)).astype(int)
    assert np.abs(found - (64 * 128 + 255 * 127) / 255).max() <= 1


@pytest.mark.parametrize(("kind", "transparency"), [("PNG", 1), ("PNG", bytes([255, 0, 255])), ("GIF", 1)])
def test_palette_transparency_is_over_white(kind: str, transparency: int | bytes) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.paste(1, (16, 0, 32, 32))
    found = crop(encode(image, kind, transparency=transparency))
    np.testing.assert_array_equal(found[16, 4], [255, 0, 0])
    np.testing.assert_array_equal(found[16, 28], [255, 255, 255])


def test_palette_without_transparency_shows_its_colours() -> None:
    picture = quarters(96, 64)
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    np.testing.assert_array_equal(crop(encode(palette, "PNG")), preprocess_image(picture, PREPROCESS))


@pytest.mark.parametrize(
    ("mode", "colour", "key"), [("L", 9, 9), ("RGB", (9, 8, 7), (9, 8, 7)), ("1", 0, 0), ("I;16", 700, 700)]
)
def test_a_transparent_colour_is_white(mode: str, colour: object, key: object) -> None:
    image = Image.new(mode, (40, 40), colour)
    assert (crop(encode(image, "PNG")) < 255).any()
    assert (crop(encode(image, "PNG", transparency=key)) == 255).all()


@pytest.mark.parametrize("size", [(40, 40), (1200, 900)])
def test_cmyk_as_adobe_writes_it(size: tuple[int, int]) -> None:
    data = encode(Image.new("CMYK", size, (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(crop(data).astype(int) - [255, 0, 0]).max() <= 4


def test_ycck_as_adobe_writes_it() -> None:
    """Luma 0 with neutral chroma is white there: both the inks and their luma are inverted."""
    inked = Image.new("CMYK", (40, 40), (255, 127, 127, 0))
    data = encode(inked, "JPEG", quality=95)
    marker = data.index(b"Adobe") + 11
    assert data[marker] == 0
    ycck = data[:marker] + b"\2" + data[marker + 1 :]
    assert np.abs(crop(ycck).astype(int) - 255).max() <= 4


@pytest.mark.parametrize(("mode", "colour"), [("YCbCr", (76, 85, 255)), ("LAB", (136, 208, 195))])
def test_other_colour_spaces_of_tiff(mode: str, colour: tuple[int, int, int]) -> None:
    data = encode(Image.new(mode, (40, 40), colour), "TIFF")
    assert np.abs(crop(data).astype(int) - [255, 0, 0]).max() <= 12


def test_one_bit() -> None:
    image = Image.new("1", (64, 64), 1)
    image.paste(0, (0, 0, 32, 64))
    for kind in ("PNG", "TIFF", "BMP"):
        found = crop(encode(image, kind))
        assert (found[:, :14] == 0).all()
        assert (found[:, 18:] == 255).all()


LEVELS = np.array([0, 64, 128, 255], np.uint8)


def levels(data: bytes) -> np.ndarray:
    """The grey of four columns of 16 pixels each, which are all that is in the image."""
    found = decode(data, Preprocess(size=64, crop_pct=1.0), LIMITS)
    return found[32, [8, 24, 40, 56], 0].astype(int)


def columns(values: list[float], kind: str) -> np.ndarray:
    return np.repeat(np.array([values], kind), 16, axis=1).repeat(64, axis=0)


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str) -> None:
    values = columns([int(level) * 257 for level in LEVELS], ">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (64, 64), values.tobytes())
    np.testing.assert_array_equal(levels(encode(image, "TIFF")), LEVELS)
    if mode == "I;16":
        np.testing.assert_array_equal(levels(encode(image, "PNG")), LEVELS)


def test_twelve_bits_have_their_own_range() -> None:
    packed = []
    for level in LEVELS:
        value = round(level / 255 * 4095)
        packed += [value >> 4, (value & 15) << 4 | value >> 8, value & 255] * 8
    data = tiff(np.tile(np.array(packed, np.uint8), (64, 1)), bits=12)
    np.testing.assert_allclose(levels(data), LEVELS, atol=1)


@pytest.mark.parametrize(
    ("values", "kind", "sample_format", "photometric", "expected"),
    [
        ([0, 64 * 257, 128 * 257, 65535], "<u2", 1, 0, [255, 191, 127, 0]),
        ([-3000, -2000, 0, 1000], "<i2", 2, 1, [0, 64, 191, 255]),
        ([-(2**31), -(2**30), 0, 2**31 - 1], "<i4", 2, 1, [0, 64, 128, 255]),
        ([0, 2**30, 2**31, 2**32 - 1], "<u4", 1, 1, [0, 64, 128, 255]),
        ([0.25, 0.5, 0.75, 1.0], "<f4", 3, 1, [64, 128, 191, 255]),
        ([0.25, 0.5, 0.75, 1.0], "<f4", 3, 0, [191, 128, 64, 0]),
        ([-1.0, 0.0, 1.0, 3.0], "<f4", 3, 1, [0, 64, 128, 255]),
        ([0.0, np.nan, 0.5, np.inf], "<f4", 3, 1, [0, 0, 128, 255]),
        ([5.0, 5.0, 5.0, 5.0], "<f4", 3, 1, [0, 0, 0, 0]),
    ],
)
def test_integers_and_floats_are_scaled(
    values: list[float], kind: str, sample_format: int, photometric: int, expected: list[int]
) -> None:
    data = tiff(
        columns(values, kind), bits=int(kind[2]) * 8, sample_format=sample_format, photometric=photometric
    )
    np.testing.assert_allclose(levels(data), expected, atol=1)


def test_no_finite_pixel_is_refused() -> None:
    data = tiff(columns([np.nan] * 4, "<f4"), bits=32, sample_format=3)
    with pytest.raises(ImageUndecodable, match="finite"):
        crop(data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(crop(data).astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pillow_image_gives_what_its_file_gives(mode: str) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (70, 50, 4), np.uint8)
    image = (
        Image.fromarray(noise).convert("I").convert(mode)
        if mode == "I;16"
        else Image.fromarray(noise).convert(mode)
    )
    data = encode(image, "PNG")
    np.testing.assert_array_equal(preprocess_image(Image.open(io.BytesIO(data)), PREPROCESS), crop(data))
