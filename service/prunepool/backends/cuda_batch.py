"""How a batch is cut for a GPU: a graph replay for each plan that was captured, one eager pass for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from torch import Tensor

from prunepool.backends.cuda_capture import CapturedGraph, DeviceEvent
from prunepool.backends.torch_batch import PixelPart
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord


class PlanGroup(NamedTuple):
    """Images of one plan, next to each other in a batch."""

    plan: ReductionPlan
    first: int
    images: int


class BatchPart(NamedTuple):
    """The images of a batch that run at once.

    Attributes:
        groups: one if they are a graph replay; all groups without a graph are one part.
        graph: replayed for them, or None: they run eagerly.
    """

    groups: tuple[PlanGroup, ...]
    graph: CapturedGraph | None


class PartResult(NamedTuple):
    """What a part of a batch has given once the batch's event is passed; logits and decisions in host memory."""

    part: BatchPart
    logits: Tensor
    decisions: Tensor
    stages: list[StageRecord]


@dataclass(frozen=True, slots=True)
class LaunchedParts:
    """A batch on the device.

    Attributes:
        results: of its parts.
        event: after all of them.
    """

    results: list[PartResult]
    event: DeviceEvent


def split_batch(
    plans: Sequence[ReductionPlan], find: Callable[[ReductionPlan, int], CapturedGraph | None]
) -> list[BatchPart]:
    """Cut a batch into what runs at once.

    Args:
        plans: of each image.
        find: the captured graph of a plan with room for so many images, or None.

    Returns:
        Graph replays in batch order, then one part of everything else, if there is any.
    """
    parts: list[BatchPart] = []
    eager: list[PlanGroup] = []
    first = 0
    for plan, images in groupby(plans):
        group = PlanGroup(plan, first, len(list(images)))
        first += group.images
        graph = find(plan, group.images)
        if graph is None:
            eager.append(group)
        else:
            parts.append(BatchPart((group,), graph))
    return [*parts, BatchPart(tuple(eager), None)] if eager else parts


def copies(group: PlanGroup, pixels: Sequence[PixelPart]) -> Iterator[tuple[PixelPart, int, int, int]]:
    """The fewest copies that gather a group's pixels: images next to each other in the batch and in the stack.

    Yields:
        Where to copy from, the first image there, the first image in the group, and how many.
    """
    for part in pixels:
        inside = [
            (i, row) for i, row in enumerate(part.rows) if group.first <= row < group.first + group.images
        ]
        for _, run in groupby(inside, key=lambda pair: pair[1] - pair[0]):
            pairs = list(run)
            yield part, pairs[0][0], pairs[0][1] - group.first, len(pairs)
