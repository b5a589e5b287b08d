"""A batch as torch takes it: pixels stacked by kind, a plan for each image, torch's memory errors translated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunepool.core.backend import OutOfMemory
from prunepool.core.types import Batch, BatchItem
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import ReductionPlan


class PixelPart(NamedTuple):
    """The images of a batch whose pixels are of one dtype.

    Attributes:
        rows: their places in the batch, ascending.
        pixels: on the model's device; uint8 [rows, H, W, 3], or normalised float32 [rows, 3, H, W].
    """

    rows: list[int]
    pixels: Tensor


class PreparedBatch(NamedTuple):
    """A batch on its way to the network.

    Attributes:
        parts: one for each dtype of pixels in it.
        plans: one for each image.
    """

    parts: list[PixelPart]
    plans: list[ReductionPlan]


def prepared_batch(
    batch: Batch, model: LoadedModel, stack: Callable[[Sequence[BatchItem]], Tensor]
) -> PreparedBatch:
    """Stack the pixels of a batch, those of one dtype together.

    Args:
        batch: its pixels are in host memory.
        model: has the plan for each ratio.
        stack: copies the pixels of some items, all of one dtype, to the model's device.
    """
    rows: dict[np.dtype[np.uint8] | np.dtype[np.float32], list[int]] = {}
    for row, item in enumerate(batch.items):
        rows.setdefault(item.request.pixels.dtype, []).append(row)
    parts = [PixelPart(those, stack([batch.items[row] for row in those])) for those in rows.values()]
    return PreparedBatch(parts, [model.plan(item.ratio) for item in batch.items])


@contextmanager
def memory_errors_translated() -> Iterator[None]:
    """Have the core see that a batch does not fit, so that it tries half of it instead of another backend.

    Raises:
        OutOfMemory: in place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(str(error)) from error
