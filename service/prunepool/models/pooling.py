"""How a network makes one vector of its tokens, and what that is after tokens were merged.

The class token alone, the mean of the patches, both side by side (:mod:`prunepool.models.token_and_mean`), or
attention of a learned query (Google's SigLIP calls it MAP head).
A token that stands for several patches counts as many times.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

#: As timm calls them; `map` is attention pooling, and `tokenavg`, which timm has not, both side by side.
Pool = Literal["token", "avg", "map", "max", "avgmax", "tokenavg"]
POOLS: tuple[Pool, ...] = ("token", "avg", "map", "max", "avgmax", "tokenavg")


#: What reduces a network whose output is read from all tokens; see docs/models.md for how it was chosen.
METHOD_OF_POOLED = "fuse"


def pool_of(vit: Any) -> str:
    """How a timm network pools; what is not in :data:`POOLS` cannot be served."""
    if getattr(vit, "attn_pool", None) is not None:
        return "map" if hasattr(vit.attn_pool, "latent") else str(vit.global_pool)
    return str(vit.global_pool)


def answer(vit: Any, x: Tensor, size: Tensor | None) -> Tensor:
    """The output of a network for what its last block gave.

    Args:
        vit: timm's.
        x: tokens, [B, N, C].
        size: patches merged into each, float32 [B, N], or None while all are 1: then timm's own head answers.

    Returns:
        Logits, or the embedding of a network without classes, [B, classes or C].
    """
    x = vit.norm(x)
    if size is None:
        out: Tensor = vit.forward_head(x)
        return out
    first = 0 if _reads_prefix(vit) else vit.num_prefix_tokens
    pooled = _pooled(vit, x[:, first:], size[:, first:])
    if pool_of(vit) == "tokenavg":
        pooled = torch.cat([x[:, 0], pooled], dim=1)
    logits: Tensor = vit.head(vit.head_drop(vit.fc_norm(pooled)))
    return logits


def _pooled(vit: Any, x: Tensor, size: Tensor) -> Tensor:
    """One vector of tokens [B, N, C] with sizes [B, N], [B, C]."""
    kind = pool_of(vit)
    if kind == "map":
        pooled: Tensor = vit.attn_pool(x, attn_mask=size.log().to(x.dtype)[:, None, None, :])
        return pooled
    if kind == "max":
        return x.amax(dim=1)
    share = (size / size.sum(dim=1, keepdim=True)).to(x.dtype)
    # A batched product of a row with a matrix: no copy of the tokens as large as they are.
    mean = torch.bmm(share.unsqueeze(1), x).squeeze(1)
    return 0.5 * (x.amax(dim=1) + mean) if kind == "avgmax" else mean


def _reads_prefix(vit: Any) -> bool:
    """Whether the prefix tokens are pooled with the others."""
    # EVA's attention pool reads all tokens.
    return bool(getattr(vit, "pool_include_prefix", pool_of(vit) == "map"))
