"""Token maps: which remaining token stands for each patch of an image.

The indices of a reduction record which tokens it merged and removed. Composed over the stages, they give the
patches that each remaining token stands for. This is computed only for images whose request asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from prunepool.core.types import StageMap, TokenMap
from prunepool.reduction.step import StageRecord
from prunepool.store import Geometry


def token_map(stages: Sequence[StageRecord], image: int, geometry: Geometry) -> TokenMap:
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
            if pruned:
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
