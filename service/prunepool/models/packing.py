"""How a batch of several plans lies in memory: one packed matrix of rows, made of rectangles.

Images of one plan keep the same number of tokens, so they are a rectangle [images, tokens, C]; the rows of
all rectangles, one after the other, are the packed [Σ tokens, C] that the linear layers see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor

from prunepool.reduction.plan import ReductionPlan


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Images of one plan, next to each other in a batch.

    Attributes:
        plan: theirs.
        first: index in the batch of the first of them.
        images: how many.
        tokens: that each has now, prefix included.
        size: patches behind each token, float32 [images, tokens]; None while all are 1.
    """

    plan: ReductionPlan
    first: int
    images: int
    tokens: int
    size: Tensor | None = None

    @property
    def rows(self) -> int:
        """Its share of the packed rows."""
        return self.images * self.tokens


def passes_of(
    groups: Sequence[tuple[ReductionPlan, int]], most: int
) -> list[list[tuple[ReductionPlan, int]]]:
    """Cut a batch into as few parts of at most `most` images as there need be, all about as large.

    Args:
        groups: plans and how many images follow each, in order.
        most: images in a part, at least 1.

    Returns:
        The groups of each part, in order; those that lie across a cut are in both.
    """
    images = sum(count for _, count in groups)
    ends = list(accumulate(even_shares(images, most))) or [0]
    parts: list[list[tuple[ReductionPlan, int]]] = [[] for _ in ends]
    at = part = 0
    for plan, left in groups:
        while left:
            taken = min(left, ends[part] - at)
            parts[part].append((plan, taken))
            at, left = at + taken, left - taken
            part += at == ends[part]
    return parts


def even_shares(images: int, most: int) -> list[int]:
    """As few shares of at most `most` images as there need be, all about as large; none of no image."""
    count = -(-images // most)
    return [images * (i + 1) // count - images * i // count for i in range(count)]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts along their first axis, without a copy where there is only one."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def runs_of(rectangles: Sequence[Rectangle]) -> list[list[Rectangle]]:
    """Neighbouring rectangles of one token count, which share one attention call."""
    return [list(run) for _, run in groupby(rectangles, key=lambda r: (r.tokens, r.size is None))]


def sizes_of(run: Sequence[Rectangle]) -> Tensor | None:
    """Patches behind each token of a run, float32 [images, tokens]; None while all are 1."""
    sizes = [r.size for r in run if r.size is not None]
    return joined(sizes) if sizes else None


def prefix_rows(x: Tensor, rectangles: Sequence[Rectangle], prefix: int) -> Tensor:
    """The prefix tokens of every image, [B·P, C], from the packed rows [Σ tokens, C]."""
    rows = x.split_with_sizes([r.rows for r in rectangles])
    front = [part.view(r.images, r.tokens, -1)[:, :prefix] for part, r in zip(rows, rectangles, strict=True)]
    return joined(front).flatten(0, 1)
