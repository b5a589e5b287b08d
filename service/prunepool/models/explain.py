"""Token maps: which remaining token stands for each patch of an image.

The indices of a reduction record which tokens it merged and removed. Composed over the stages, they give the
patches that each remaining token stands for. This is computed only for images whose request asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from prunepool.core.types import StageMap, TokenMap
from prunepool.reduction.methods import DROPPED
from prunepool.store import Geometry


class Stage(Protocol):
    """One reduction of neighbouring images, as in :class:`~prunepool.reduction.step.StageRecord`, or in arrays."""

    @property
    def block(self) -> int:
        """Index of the reducing block."""

    @property
    def first(self) -> int:
        """Index in the batch of the first image."""

    @property
    def indices(self) -> Sequence[Any]:
        """Which tokens were kept, which were removed, and what those were merged into, int64 [B, …] each."""

    @property
    def pruned(self) -> Any:
        """Whether each image's removed tokens were dropped, bool [B]."""

    @property
    def variance(self) -> Any:
        """Variance of the scores, float32 [B]."""

    @property
    def dropped(self) -> int:
        """Tokens of each image that were dropped though it was not pruned."""


def token_map(stages: Sequence[Stage], image: int, geometry: Geometry) -> TokenMap:
    """The token map of one image.

    Args:
        stages: all reductions of the batch.
        image: index of the image in the batch.
        geometry: of the network.
    """
    prefix = geometry.prefix_tokens
    # The patches that each token stands for; a prefix token stands for none.
    groups: list[tuple[int, ...]] = [()] * prefix + [(patch,) for patch in range(geometry.patches)]
    maps: list[StageMap] = []
    for stage in stages:
        row = image - stage.first
        if not 0 <= row < len(stage.pruned):
            continue
        keep, remove, target = (part[row].tolist() for part in stage.indices)
        kept = [groups[position] for position in keep]
        gone: list[int] = []
        pruned = bool(stage.pruned[row])
        for position, into in zip(remove, target, strict=True):
            if pruned or into == DROPPED:
                gone += groups[position]
            else:
                kept[into] = tuple(sorted(kept[into] + groups[position]))
        groups = kept
        maps.append(
            StageMap(
                block=stage.block,
                action="prune" if pruned else "pool",
                variance=float(stage.variance[row]),
                pruned=tuple(sorted(gone)),
                groups=tuple(groups[prefix:]),
            )
        )
    return TokenMap(grid=geometry.patch_grid, tokens=tuple(groups[prefix:]), stages=tuple(maps))
