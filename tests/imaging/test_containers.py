"""Only known formats, only within limits, and never at a price that the sender sets."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile

from prunepool.errors import ImageTooLarge, ImageUndecodable, RequestError, UnsupportedMediaType
from prunepool.imaging import ImageLimits, Preprocess, decode

PREPROCESS = Preprocess(size=32)
KINDS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def encode(kind: str, size: tuple[int, int] = (100, 80), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(data: bytes, *, max_pixels: int = 50_000_000) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(data, PREPROCESS, ImageLimits(max_pixels))
    return caught.value


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file whose header claims another size."""
    data = encode(kind)
    match kind:
        case "JPEG":
            frame = data.index(b"\xff\xc0")
            return patched(data, frame + 5, struct.pack(">HH", height, width))
        case "PNG":
            header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
            return patched(data, 12, header + struct.pack(">I", zlib.crc32(header)))
        case "WEBP":
            return patched(data, 26, struct.pack("<HH", width, height))
        case "GIF":
            return patched(data, 6, struct.pack("<HH", width, height))
        case "BMP":
            return patched(data, 18, struct.pack("<ii", width, height))
        case _:
            wide, high = (data.index(struct.pack("<HHI", tag, 4, 1)) for tag in (256, 257))
            return patched(
                patched(data, wide + 8, struct.pack("<I", width)), high + 8, struct.pack("<I", height)
            )


@pytest.mark.parametrize("kind", KINDS)
def test_every_served_format_is_decoded(kind: str) -> None:
    crop = decode(encode(kind), PREPROCESS, ImageLimits())
    assert crop.shape == (32, 32, 3)
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous
    assert crop.flags.writeable


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"])
def test_compressed_tiff_is_decoded(compression: str) -> None:
    plain = decode(encode("TIFF"), PREPROCESS, ImageLimits()).astype(int)
    found = decode(encode("TIFF", compression=compression), PREPROCESS, ImageLimits())
    assert np.abs(found - plain).mean() < (12 if compression == "jpeg" else 1e-9)


@pytest.mark.parametrize("data", [b"", b"\0", b"hello", bytes(1000), b"RIFF\0\0\0\0WAVEfmt ", b"BMX", b"II*"])
def test_what_is_no_image_is_undecodable(data: bytes) -> None:
    assert isinstance(refusal(data), ImageUndecodable)


def test_the_empty_body_is_called_empty() -> None:
    assert "empty" in refusal(b"").detail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_undecodable(kind: str, share: float) -> None:
    data = encode(kind, (300, 200))
    assert isinstance(refusal(data[: int(len(data) * share)]), ImageUndecodable)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF", "PostScript"),
        (b"8BPS\0\1", "PSD"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "MP4"),
        (b"\xef\xbb\xbf \n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<SVG width='3'/>", "SVG"),
        (b"<!DOCTYPE html><html><body>404", "HTML"),
        (b"PK\x03\x04\x14\0", "ZIP"),
    ],
)
def test_a_foreign_format_is_refused_by_name(data: bytes, name: str) -> None:
    error = refusal(data)
    assert isinstance(error, UnsupportedMediaType)
    assert name in error.detail
    assert "JPEG, PNG, WebP, GIF, BMP or TIFF" in error.detail


@pytest.mark.parametrize(
    ("kind", "name"), [("AVIF", "AVIF"), ("PDF", "PDF"), ("JPEG2000", "JPEG 2000"), ("ICO", "ICO")]
)
def test_what_pillow_itself_could_read_is_refused_by_name(kind: str, name: str) -> None:
    error = refusal(encode(kind))
    assert isinstance(error, UnsupportedMediaType)
    assert error.extra["found"] == name


@pytest.mark.parametrize("kind", KINDS)
def test_the_limit_of_pixels_is_exact(kind: str) -> None:
    data = encode(kind, (50, 40))
    assert decode(data, PREPROCESS, ImageLimits(2000)).shape == (32, 32, 3)
    error = refusal(data, max_pixels=1999)
    assert isinstance(error, ImageTooLarge)
    assert "50×40 = 2,000 pixels; the limit is 1,999" in error.detail


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_decides_before_any_pixel_is_decoded(kind: str) -> None:
    truncated = slice(None, -50)
    assert isinstance(refusal(claiming(kind, 12_000, 9_000)[truncated]), ImageTooLarge)
    assert isinstance(refusal(claiming(kind, 1200, 900)[truncated]), ImageUndecodable)


@pytest.mark.parametrize("kind", ["RGBA", "lossless"])
def test_the_header_of_every_kind_of_webp_decides(kind: str) -> None:
    buffer = io.BytesIO()
    picture = Image.effect_noise((100, 80), 90).convert("RGBA" if kind == "RGBA" else "RGB")
    picture.putalpha(100)
    (picture if kind == "RGBA" else picture.convert("RGB")).save(buffer, "WEBP", lossless=kind == "lossless")
    data = buffer.getvalue()
    if data[12:16] == b"VP8X":
        data = patched(data, 24, (11_999).to_bytes(3, "little") + (8_999).to_bytes(3, "little"))
    else:
        assert data[12:16] == b"VP8L"
        data = patched(data, 21, struct.pack("<I", 11_999 | 8_999 << 14))
    assert "12000×9000" in refusal(data).detail


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(0, 80), (100, 0), (0, 0)])
def test_a_side_of_zero_is_undecodable(kind: str, size: tuple[int, int]) -> None:
    if kind == "GIF":  # its frame has a size of its own, and the screen grows to it
        frame = encode(kind).index(b"," + struct.pack("<HHHH", 0, 0, 100, 80))
        data = patched(claiming(kind, *size), frame + 5, struct.pack("<HH", *size))
    else:
        data = claiming(kind, *size)
    assert isinstance(refusal(data), ImageUndecodable)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536), (2**31 - 1, 2**31 - 1)])
def test_absurd_sides_are_too_large(kind: str, size: tuple[int, int]) -> None:
    assert isinstance(refusal(claiming(kind, *size)), ImageTooLarge)


def test_pillows_own_guard_is_a_refusal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert isinstance(refusal(encode("TIFF")), ImageTooLarge)


def test_the_limit_may_be_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert decode(encode("JPEG"), PREPROCESS, ImageLimits()).shape == (32, 32, 3)


def test_pillows_settings_stay_as_they_are() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode(encode("PNG"), PREPROCESS, ImageLimits())
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_lack_of_memory_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert isinstance(refusal(encode("PNG")), ImageTooLarge)


def test_a_limit_below_one_pixel_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        ImageLimits(0)


def progressive(more_scans: int) -> bytes:
    """A JPEG of 10 scans, the last of them (a few bytes) again and again."""
    data = encode("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * more_scans + data[-2:]


def test_a_jpeg_of_many_scans_is_undecodable() -> None:
    assert decode(progressive(10), PREPROCESS, ImageLimits(8000)).shape == (32, 32, 3)
    assert "scans" in refusal(progressive(11), max_pixels=8000).detail


def test_a_small_jpeg_may_have_more_scans() -> None:
    assert decode(progressive(30), PREPROCESS, ImageLimits(16_000)).shape == (32, 32, 3)


@pytest.mark.parametrize("where", ["comment", "after the end"])
def test_what_looks_like_scans_is_not_counted(where: str) -> None:
    data, likeness = progressive(0), b"\xff\xda" * 1000
    if where == "comment":
        data = data[:2] + b"\xff\xfe" + struct.pack(">H", len(likeness) + 2) + likeness + data[2:]
    else:
        data += likeness
    assert decode(data, PREPROCESS, ImageLimits(8000)).shape == (32, 32, 3)


def test_markers_that_hide_scans_are_undecodable() -> None:
    data = progressive(11)
    hidden = data[:-2].replace(b"\xff\xda", b"\xff\xfe\0\2" * 30_000 + b"\xff\xda", 1)
    assert isinstance(refusal(hidden + data[-2:], max_pixels=8000), ImageUndecodable)


def test_a_tiff_of_a_million_strips_is_undecodable() -> None:
    data = encode("TIFF")
    entry = data.index(struct.pack("<HH", 273, 4))
    data = patched(data, entry + 4, struct.pack("<II", 1_000_000, len(data))) + bytes(4_000_000)
    assert "tag 273" in refusal(data).detail


def many_parts(kind: str) -> bytes:
    match kind:
        case "JPEG":
            return b"\xff\xd8" + b"\xff\xe0\0\2" * 100_000
        case "PNG":
            chunk = b"\0\0\0\0abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
            return encode("PNG")[:33] + chunk * 100_000 + encode("PNG")[33:]
        case _:
            return b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b"!\xfe" + b"\1a" * 100_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_a_header_of_many_parts_is_undecodable(kind: str) -> None:
    assert "too many small parts" in refusal(many_parts(kind)).detail


def test_a_png_of_small_chunks_is_decoded() -> None:
    """Encoders write chunks of 8 KiB and more; half a kilobyte is still no offence."""
    plain = encode("PNG", (500, 400))
    start, end = plain.index(b"IDAT") + 4, plain.rindex(b"IEND") - 8
    packed = zlib.compress(b"".join(b"\0" + bytes(1500) for _ in range(400)), 0)
    chunks = b""
    for at in range(0, len(packed), 512):
        body = b"IDAT" + packed[at : at + 512]
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = plain[: start - 8] + chunks + plain[end + 4 :]
    assert decode(data, PREPROCESS, ImageLimits()).max() == 0


def test_run_length_encoded_bmp_is_refused_by_name() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 60_000, 700, 1, 8, 1, 0, 0, 0, 0, 0)
    palette = b"".join(bytes([i, 0, i, 0]) for i in range(256))
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + palette + b"\1\0\0\0" * 700 + b"\0\1"
    error = refusal(data)
    assert isinstance(error, UnsupportedMediaType)
    assert "run-length" in error.detail


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_compressed_tiff_is_refused_by_name(compression: str) -> None:
    buffer = io.BytesIO()
    Image.new("1", (100, 80)).save(buffer, "TIFF", compression=compression)
    error = refusal(buffer.getvalue())
    assert isinstance(error, UnsupportedMediaType)
    assert compression in error.detail


def test_many_threads_decode_what_one_does() -> None:
    files = [encode(kind, (200 + 10 * i, 150)) for i in range(4) for kind in KINDS]
    alone = [decode(data, PREPROCESS, ImageLimits()) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data, PREPROCESS, ImageLimits()), files * 3))
    np.testing.assert_array_equal(together, alone * 3)
