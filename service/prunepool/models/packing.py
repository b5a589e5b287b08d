"""A batch of several plans as one packed (ragged) matrix of rows, made of segments.

Images of one plan keep the same number of tokens, so they form a segment [images, tokens, C]. The rows of all
segments, one after the other, are the packed matrix [Σ tokens, C] that the linear layers see. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor

from prunepool.models.shares import even_shares
from prunepool.reduction.plan import ReductionPlan


@dataclass(frozen=True, slots=True)
class RaggedSegment:
    """Images of one plan, next to each other in a batch.

    Attributes:
        plan: of all its images.
        first: index in the batch of the first image.
        images: number of images.
        tokens: tokens of each image now, prefix included.
        size: patches merged into each token, float32 [images, tokens]; None while all are 1.
        place: of each token at the input, int64 [images, tokens], where its position matters inside attention;
            None while no token has been removed.
        counted: how often attention counts each token, float32 [images, tokens]; None for as often as it has
            patches.
    """

    plan: ReductionPlan
    first: int
    images: int
    tokens: int
    size: Tensor | None = None
    place: Tensor | None = None
    counted: Tensor | None = None

    @property
    def rows(self) -> int:
        """Number of packed rows."""
        return self.images * self.tokens


def passes_of(
    groups: Sequence[tuple[ReductionPlan, int]], limit: int
) -> list[list[tuple[ReductionPlan, int]]]:
    """Cut a batch into the fewest parts of at most `limit` images, all about equally large.

    Args:
        groups: plans and how many images follow each, in order.
        limit: the largest number of images in a part, at least 1.

    Returns:
        The groups of each part, in order; a group that a cut divides is in both parts.
    """
    images = sum(count for _, count in groups)
    ends = list(accumulate(even_shares(images, limit))) or [0]
    parts: list[list[tuple[ReductionPlan, int]]] = [[] for _ in ends]
    at = part = 0
    for plan, left in groups:
        while left:
            taken = min(left, ends[part] - at)
            parts[part].append((plan, taken))
            at, left = at + taken, left - taken
            part += at == ends[part]
    return parts


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate parts along their first axis; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def split_rows(rows: Tensor, counts: Sequence[int]) -> Sequence[Tensor]:
    """Split along the first axis; a single part is taken as it is, for which an exported program would copy it."""
    return (rows,) if len(counts) == 1 else rows.split_with_sizes(list(counts))


def attention_calls(segments: Sequence[RaggedSegment]) -> list[list[RaggedSegment]]:
    """The segments of each attention call: neighbours of equal token count share one."""
    return [list(call) for _, call in groupby(segments, key=lambda s: (s.tokens, s.size is None))]


def sizes_of(call: Sequence[RaggedSegment]) -> Tensor | None:
    """Patches merged into each token of a call's segments, float32 [images, tokens]; None while all are 1."""
    sizes = [s.size for s in call if s.size is not None]
    return joined(sizes) if sizes else None


def counts_of(call: Sequence[RaggedSegment]) -> Tensor | None:
    """How often attention counts each token of a call's segments, float32 [images, tokens]; None for once."""
    counts = [s.size if s.counted is None else s.counted for s in call if s.size is not None]
    return joined(counts) if counts else None


def places_of(call: Sequence[RaggedSegment]) -> Tensor | None:
    """The place at the input of each token of a call's segments, int64 [images, tokens]; None while none moved."""
    places = [s.place for s in call if s.place is not None]
    return joined(places) if places else None


def prefix_rows(x: Tensor, segments: Sequence[RaggedSegment], prefix: int) -> Tensor:
    """The prefix tokens of every image, [B·P, C], from the packed rows [Σ tokens, C]."""
    rows = split_rows(x, [s.rows for s in segments])
    front = [part.view(s.images, s.tokens, -1)[:, :prefix] for part, s in zip(rows, segments, strict=True)]
    return joined(front).flatten(0, 1)
