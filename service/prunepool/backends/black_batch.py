"""Batches of black images, to warm up with. It needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunepool.core.types import Batch, BatchItem, RatioSpec, Request


def black_batch(size: int, ratios: Sequence[float]) -> Batch:
    """A batch of black images.

    Args:
        size: input resolution, in pixels a side.
        ratios: one for each image.
    """
    request = Request(np.zeros((size, size, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0)
    return Batch(tuple(BatchItem(request, ratio, "warm-up") for ratio in ratios), 0.0)


def warm_up_ratios(most: float, max_batch_size: int) -> list[tuple[float, ...]]:
    """The ratios of small and large batches at both ends of the ratios, and of a mix.

    Args:
        most: the largest ratio of the model.
        max_batch_size: images in the largest batch.
    """
    return [(0.0,), (most,), (0.0, most / 2, most), (0.0,) * max_batch_size]
