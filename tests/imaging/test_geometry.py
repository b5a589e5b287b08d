"""The crop is timm's, and no shape of image makes it cost much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from timm.data import create_transform

from prunepool.imaging import Preprocess, preprocess_image
from prunepool.imaging.geometry import central_region

SIDES = st.integers(1, 700)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def timm_crop(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    transform = create_transform(
        input_size=preprocess.size,
        interpolation=preprocess.interpolation,
        crop_pct=preprocess.crop_pct,
        is_training=False,
        normalize=False,
    )
    return transform(image).permute(1, 2, 0).numpy()


@given(width=SIDES, height=SIDES)
@example(500, 375)
@example(375, 500)
@example(248, 248)
@example(224, 224)
def test_ordinary_shapes_equal_timm_bit_for_bit(width: int, height: int) -> None:
    if max(width, height) > 8 * min(width, height):
        width = height
    image = noise(width, height)
    np.testing.assert_array_equal(preprocess_image(image, Preprocess()), timm_crop(image, Preprocess()))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (224, 1.0), (384, 0.95), (97, 0.9)])
def test_every_preprocess_equals_timm_bit_for_bit(size: int, crop_pct: float, interpolation: str) -> None:
    preprocess = Preprocess(size, crop_pct, interpolation)
    image = noise(401, 300)
    np.testing.assert_array_equal(preprocess_image(image, preprocess), timm_crop(image, preprocess))


@pytest.mark.parametrize("size", [(300, 20), (20, 301), (97, 4), (5, 98)])
def test_a_strip_that_is_cut_first_looks_as_timm_would_have_it(size: tuple[int, int]) -> None:
    image = noise(*size).filter(ImageFilter.GaussianBlur(6))
    ours = preprocess_image(image, Preprocess()).astype(int)
    assert np.abs(ours - timm_crop(image, Preprocess())).mean() < 1


@given(width=st.integers(1, 100_000), height=st.integers(1, 100_000))
@example(1, 5000)
@example(5000, 1)
def test_what_is_resized_is_central_and_bounded(width: int, height: int) -> None:
    left, top, right, bottom = central_region(width, height)
    assert (left, top) == (width - right, height - bottom)
    assert 1 <= max(right - left, bottom - top) <= 8 * min(width, height) + 1
    if max(width, height) <= 8 * min(width, height):
        assert (left, top) == (0, 0)


@pytest.mark.parametrize("upright", [True, False])
def test_one_pixel_by_five_thousand_shows_its_middle(upright: bool) -> None:
    ramp = np.linspace(0, 255, 5000).round().astype(np.uint8)
    image = Image.fromarray(ramp[:, None] if upright else ramp[None, :])
    crop = preprocess_image(image, Preprocess())
    assert crop.shape == (224, 224, 3)
    assert np.abs(crop.astype(int) - 127).max() <= 1


@given(width=st.integers(1, 5000), height=st.integers(1, 20), swap=st.booleans())
def test_any_shape_gives_the_right_one(width: int, height: int, swap: bool) -> None:
    image = Image.new("L", (height, width) if swap else (width, height), 77)
    crop = preprocess_image(image, Preprocess(size=64))
    assert crop.shape == (64, 64, 3)
    assert (crop == 77).all()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"size": 0}, "size"),
        ({"crop_pct": 0.0}, "crop_pct"),
        ({"crop_pct": 1.1}, "crop_pct"),
        ({"crop_pct": float("nan")}, "crop_pct"),
        ({"interpolation": "hamming"}, "interpolation"),
    ],
)
def test_a_wrong_preprocess_is_refused_by_name(wrong: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Preprocess(**wrong)
