"""Random views of photos: a different crop each time an image is used."""

from __future__ import annotations

import math
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunepool.errors import ImageUndecodable, PrunepoolError
from prunepool.files import read_regular
from prunepool.imaging.containers import ImageLimits, open_image
from prunepool.imaging.pixels import to_rgb, transposition
from prunepool.lab.images import ImageSet
from prunepool.lab.training.recipe import Recipe

#: Aspect ratios of crops before they are resized to a square.
_ASPECT = (3 / 4, 4 / 3)
#: Attempts to draw a box that fits in the photo; after them, the photo's centre is used.
_TRIES = 10
#: Batches that are prepared in advance.
_AHEAD = 2


class Views(NamedTuple):
    """A batch.

    Attributes:
        step: number of its training step.
        pixels: uint8 [B, size, size, 3].
        labels: int64 [B], or None.
    """

    step: int
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


def random_view(image: Image.Image, size: int, recipe: Recipe, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random crop of a photo, resized to a square, randomly mirrored, with jittered brightness and contrast.

    Args:
        image: RGB.
        size: height and width of the result, in pixels.
        recipe: limits how much a view may differ from the photo.
        rng: source of randomness.

    Returns:
        uint8 [size, size, 3].
    """
    view = image.resize((size, size), Image.Resampling.BICUBIC, box=_box(image.size, recipe.min_area, rng))
    pixels = np.asarray(view)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    brightness, contrast = rng.uniform(1 - recipe.jitter, 1 + recipe.jitter, 2)
    if not recipe.jitter:
        return np.ascontiguousarray(pixels)
    values = pixels.astype(np.float32)
    mean = values.mean()
    values = ((values - mean) * contrast + mean) * brightness
    made: NDArray[np.uint8] = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return made


def _box(
    size: tuple[int, int], min_area: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a part with at least a share of the area, if one fits."""
    width, height = size
    for _ in range(_TRIES):
        area = rng.uniform(min_area, 1.0) * width * height
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        left, top = rng.random() * (width - w), rng.random() * (height - h)
        if w <= width and h <= height:
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def chosen(images: int, step: int, recipe: Recipe) -> NDArray[np.int64]:
    """The images of a step: every image is used once per epoch, in a new order each time."""
    first = step * recipe.batch_size
    places = np.arange(first, first + recipe.batch_size)
    epochs, offsets = np.divmod(places, images)
    orders = {
        int(epoch): np.random.default_rng([recipe.seed, 1, int(epoch)]).permutation(images)
        for epoch in np.unique(epochs)
    }
    return np.array([orders[int(e)][o] for e, o in zip(epochs, offsets, strict=True)], np.int64)


def views(images: ImageSet, size: int, recipe: Recipe, *, start: int, workers: int) -> Generator[Views]:
    """The batches from step `start` to the last; they do not depend on interruptions of the run.

    Args:
        images: photos and their labels.
        size: input resolution: height and width in pixels.
        recipe: of the run.
        start: number of the first step.
        workers: number of decoding threads.

    Raises:
        ImageUndecodable: an image is missing or cannot be decoded; names it.
    """
    limits = ImageLimits()

    def view(file: Path, step: int, place: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng([recipe.seed, 2, step, place])
        return random_view(_photo(file, size, limits), size, recipe, rng)

    with ThreadPoolExecutor(workers) as pool:
        waiting: list[tuple[int, NDArray[np.int64], list[Future[NDArray[np.uint8]]]]] = []

        def ask(step: int) -> None:
            indices = chosen(len(images), step, recipe)
            files = [pool.submit(view, images.files[i], step, place) for place, i in enumerate(indices)]
            waiting.append((step, indices, files))

        try:
            for step in range(start, min(start + _AHEAD, recipe.steps)):
                ask(step)
            while waiting:
                step, indices, futures = waiting.pop(0)
                pixels = np.stack([future.result() for future in futures])
                if step + _AHEAD < recipe.steps:
                    ask(step + _AHEAD)
                yield Views(step, pixels, None if images.labels is None else images.labels[indices])
        finally:
            pool.shutdown(cancel_futures=True)


def _photo(file: Path, size: int, limits: ImageLimits) -> Image.Image:
    """Decode a photo to upright RGB, no larger than a crop needs."""
    try:
        image = open_image(read_regular(file, limits.max_bytes), limits)
        image.draft(None, (2 * size, 2 * size))
        image.load()
        turn = transposition(image)
        rgb = to_rgb(image)
    except PrunepoolError as error:
        raise ImageUndecodable(f"{file}: {error.detail}") from error
    except OSError as error:
        raise ImageUndecodable(f"{file}: {error.strerror or error}") from error
    return rgb if turn is None else rgb.transpose(turn)
