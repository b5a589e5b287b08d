"""Random crops, and which images a step sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prunepool.errors import ImageUndecodable
from prunepool.lab.images import ImageSet
from prunepool.lab.training.recipe import Recipe
from prunepool.lab.training.views import chosen, random_view, views


@given(images=st.integers(1, 40), batch=st.integers(1, 16), seed=st.integers(0, 9))
def test_every_image_is_seen_once_before_any_is_seen_again(images: int, batch: int, seed: int) -> None:
    recipe = Recipe(batch_size=batch, seed=seed)
    steps = -(-2 * images // batch)
    seen = np.concatenate([chosen(images, step, recipe) for step in range(steps)])
    assert sorted(seen[:images]) == list(range(images))
    assert sorted(seen[images : 2 * images]) == list(range(images))


def test_another_epoch_has_another_order() -> None:
    recipe = Recipe(batch_size=50)
    assert list(chosen(50, 0, recipe)) != list(chosen(50, 1, recipe))


def test_batches_are_the_same_wherever_one_begins(coloured: ImageSet) -> None:
    recipe = Recipe(steps=4, batch_size=3)
    whole = list(views(coloured, 32, recipe, start=0, workers=2))
    rest = list(views(coloured, 32, recipe, start=2, workers=1))
    assert [batch.step for batch in rest] == [2, 3]
    for one, other in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_labels_go_with_their_images(coloured: ImageSet) -> None:
    recipe = Recipe(steps=4, batch_size=4, jitter=0.0)
    for batch in views(coloured, 32, recipe, start=0, workers=1):
        assert batch.labels is not None
        brightest = batch.pixels[:, :, :, :].mean(axis=(1, 2))
        for mean, label in zip(brightest, batch.labels, strict=True):
            assert (mean > 100).tolist() == [
                [True, False, False],
                [False, True, False],
                [False, False, True],
                [True, True, False],
            ][label]


def test_a_crop_is_seen_another_way_each_time(coloured: ImageSet) -> None:
    recipe = Recipe()
    image = Image.open(coloured.files[0])
    one, other = (random_view(image, 32, recipe, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == (32, 32, 3)
    assert (one != other).any()


def test_an_image_far_from_square_has_a_view() -> None:
    strip = Image.new("RGB", (400, 8), (10, 20, 30))
    view = random_view(strip, 32, Recipe(jitter=0.0, min_area=0.9), np.random.default_rng(0))
    assert (view == (10, 20, 30)).all()


def test_a_file_that_is_no_image_is_named(coloured: ImageSet) -> None:
    broken = coloured.files[0].with_name("broken.png")
    broken.write_bytes(b"no image")
    with pytest.raises(ImageUndecodable, match=r"broken\.png"):
        list(views(ImageSet((broken,), None), 32, Recipe(steps=1), start=0, workers=1))
