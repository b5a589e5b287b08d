"""Local merging, then global: windows of 2×2 patches become one token where they are most alike.

The first reduction of an image takes the windows with the highest mean cosine of their pairs, as many as the
plan asks for; of the last one it merges only a part. Later reductions, when tokens no longer form a grid, match
all even with all odd positions as ToMe does. The paper merges what is more alike than a threshold: how many
that are would depend on the image, and a batch would have no shape.

Sources: Norouzi et al., "ALGM: Adaptive Local-then-Global Token Merging", arXiv 2406.09936; local merging
alone: NPM.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.pool import pool
from prunepool.reduction.rows import gather_rows
from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import TokenReduction, kept_in_order


def step(inputs: StepInputs) -> Reduced:
    """Merge windows if nothing was removed before, else the most similar pairs."""
    if inputs.size is None:
        if inputs.grid is None:
            raise ValueError("local merging needs the grid of patches; got None")
        indices = merge_windows(inputs.x, inputs.removed, inputs.prefix, inputs.grid)
        return carry_out(inputs, indices, pruned=False)
    keep, remove, target = pool(inputs.mean_keys(), inputs.removed, inputs.prefix)
    return carry_out(inputs, kept_in_order(remove, keep.gather(1, target), inputs.x.shape[1]), pruned=False)


def merge_windows(x: Tensor, removed: int, prefix: int, grid: tuple[int, int]) -> TokenReduction:
    """Merge the windows whose patches are most alike into their first patch.

    Args:
        x: tokens, [B, N, C]; the patches in rows of the grid.
        removed: r, tokens to remove, at most three of each whole window.
        prefix: P, tokens in front, which are kept unchanged.
        grid: rows and columns of patches; what an odd number leaves over is in no window.

    Raises:
        ValueError: r is more than the windows have.
    """
    windows = _windows(grid, x.device)
    most = 3 * windows.shape[0]
    if not 0 <= removed <= most:
        raise ValueError(f"removed must be between 0 and {most}, three of each 2×2 window; got {removed}")
    parts = gather_rows(F.normalize(x.float(), dim=-1), (windows + prefix).flatten().expand(x.shape[0], -1))
    # The length of the mean of four unit vectors says how alike they are: the mean cosine of all pairs.
    alike = parts.view(len(x), *windows.shape, -1).mean(dim=2).norm(dim=-1)
    best = alike.argsort(dim=-1, descending=True, stable=True)[:, : -(-removed // 3)]
    chosen = windows[best] + prefix
    remove = chosen[:, :, 1:].flatten(1)[:, :removed]
    into = chosen[:, :, :1].expand(-1, -1, 3).flatten(1)[:, :removed]
    return kept_in_order(remove, into, x.shape[1])


def _windows(grid: tuple[int, int], device: torch.device) -> Tensor:
    """The patches of each 2×2 window, int64 [windows, 4]."""
    rows, columns = grid
    patch = torch.arange(rows * columns, device=device).view(rows, columns)
    whole = patch[: rows // 2 * 2, : columns // 2 * 2]
    return whole.view(rows // 2, 2, columns // 2, 2).transpose(1, 2).reshape(-1, 4)
