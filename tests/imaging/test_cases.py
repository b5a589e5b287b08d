"""Small files that other decoders were reported to fail on, and what each must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunepool.errors import ImageTooLarge, ImageUndecodable, RequestError, UnsupportedMediaType
from prunepool.imaging import ImageLimits, Preprocess, decode

CASES = Path(__file__).parent / "cases"
PREPROCESS = Preprocess(size=32, crop_pct=1.0)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
#: The mean of the photo that many of the files hold, in 8-bit RGB and in grey.
PHOTO, GREY_PHOTO = (111.9, 130.7, 79.7), (119.3,) * 3

#: The colour that the whole picture has.
COLOURS = {
    "1x1.png": (1, 2, 3),
    "alpha.webp": WHITE,
    "bgrx-zero-alpha.bmp": (10, 20, 30),
    "cgbi.png": (1, 2, 3),
    "float01.tif": (128,) * 3,
    "gif-no-trailer.gif": BLACK,
    "grey16-II.tif": (128,) * 3,
    "grey16-MM.tif": (128,) * 3,
    "grey16-white0-MM.tif": (191,) * 3,
    "grey16.png": (128,) * 3,
    "grey4.png": (136,) * 3,
    "grey4.tif": (136,) * 3,
    "idat-long.png": (1, 2, 3),
    "la.tif": WHITE,
    "la16-half.png": (127,) * 3,
    "lab.tif": (119,) * 3,
    "os2.bmp": (10, 20, 30),
    "pal-half.png": (127,) * 3,
    "pal-index-beyond.png": BLACK,
    "pal-short-trns.png": (0, 0, 255),
    "rgb-noextrasamples.tif": WHITE,
    "rgb16-II.tif": (18, 86, 154),
    "rgb16-MM.tif": (18, 86, 154),
    "rgb555.bmp": (255, 0, 0),
    "rgb565.bmp": (255, 0, 0),
    "rgba-assoc-half.tif": (127,) * 3,
    "rgba-unassoc.tif": WHITE,
    "rgba.tif": WHITE,
    "rgba16-half.png": (127,) * 3,
    "trns-pal-long.png": (1, 2, 3),
    "v5-alpha0.bmp": WHITE,
    # A transparent colour is white, and only it.
    "grey1-black.png": WHITE,
    "grey1-white.png": WHITE,
    "grey16-transparent.png": WHITE,
    "grey2.png": WHITE,
    "grey4-opaque136.png": (136,) * 3,
    "grey4-transparent.png": WHITE,
    "grey8.png": WHITE,
    "pal4.png": WHITE,
    "rgb16-near.png": (18, 86, 144),
    "rgb16-none.png": (18, 86, 154),
    "rgb16-opaque.png": (52, 120, 156),
    "rgb16-opaque2.png": (52, 120, 156),
    "rgb16.png": WHITE,
    "rgb8.png": WHITE,
}
#: The mean of the picture.
MEANS = {
    "1.tif": (118.5,) * 3,
    "411.jpg": PHOTO,
    "bmp1.bmp": (118.5,) * 3,
    "cut1.jpg": PHOTO,
    "exif-0.jpg": PHOTO,
    "exif-3.jpg": PHOTO,
    "exif-9.jpg": PHOTO,
    "grey.jpg": GREY_PHOTO,
    "grey1.png": (127.5,) * 3,
    "i32.tif": (127.5,) * 3,
    "int16s-II.tif": (127.5,) * 3,
    "int16s-MM.tif": (127.5,) * 3,
    "no-eoi.jpg": PHOTO,
    "prog-scan-cut-eoi.jpg": PHOTO,
    "rst.jpg": PHOTO,
    "two-jpegs.jpg": PHOTO,
    "zero-tail.jpg": PHOTO,
    # A first frame in a corner of a white canvas.
    "anim-alpha-opaque.webp": (255, 191.2, 191.2),
    "gif-canvas-bigger.gif": (239.1,) * 3,
    "gif-canvas.gif": (255, 191.2, 191.2),
    "gif-frame-outside.gif": (226.7,) * 3,
}
#: Contradictory files that decoders agree to show, whatever it is that they show.
SHOWN = ("arith.jpg", "baseline-zeros.jpg", "bmp-jpeg.bmp")
REFUSALS: dict[str, type[RequestError]] = {
    "65536x1.png": ImageTooLarge,
    "colour5.png": ImageUndecodable,
    "depth3.png": ImageUndecodable,
    "f32rgb-II.tif": UnsupportedMediaType,
    "filter9.png": ImageUndecodable,
    "group4.tif": UnsupportedMediaType,
    "height0.jpg": ImageUndecodable,
    "idat-empty-stream.png": ImageUndecodable,
    "idat-short-half.png": ImageUndecodable,
    "idat-short.png": ImageUndecodable,
    "jpeg-2comp.jpg": ImageUndecodable,
    "lead-bom.jpg": ImageUndecodable,
    "lossless.jpg": ImageUndecodable,
    "planar2.tif": ImageUndecodable,
    "prec12.jpg": ImageUndecodable,
    "tif-cut.tif": ImageUndecodable,
    "trns-empty.png": ImageUndecodable,
    "zero-width.png": ImageUndecodable,
}
#: What is wrong with a chunk that concerns no pixel changes nothing.
IN_METADATA = (200, 30, 40)


def files(folder: str) -> list[Path]:
    return sorted((CASES / folder).iterdir())


def check(data: bytes, name: str) -> None:
    if (refusal := REFUSALS.get(name)) is not None:
        with pytest.raises(refusal):
            decode(data, PREPROCESS, ImageLimits())
        return
    crop = decode(data, PREPROCESS, ImageLimits())
    if name in COLOURS:
        np.testing.assert_array_equal(crop, np.broadcast_to(COLOURS[name], crop.shape))
    elif name not in SHOWN:
        np.testing.assert_allclose(crop.mean(axis=(0, 1)), MEANS[name], atol=0.5)


@pytest.mark.parametrize("file", files("images"), ids=lambda file: file.name)
def test_images_of_every_format(file: Path) -> None:
    check(file.read_bytes(), file.name)


@pytest.mark.parametrize("file", files("png-transparency"), ids=lambda file: file.name)
def test_transparent_colours_of_every_depth(file: Path) -> None:
    check(file.read_bytes(), file.name)


@pytest.mark.parametrize("file", files("png-metadata"), ids=lambda file: file.name)
def test_metadata_of_png_concerns_no_pixel(file: Path) -> None:
    crop = decode(file.read_bytes(), PREPROCESS, ImageLimits())
    np.testing.assert_array_equal(crop, np.broadcast_to(IN_METADATA, crop.shape))
