"""Forward passes of student and teacher that keep the features that the losses compare."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import ReductionPlan


class Pass(NamedTuple):
    """The results of a forward pass.

    Attributes:
        logits: float32 [B, classes].
        features: tokens [B, N, C] after the embedding and after each block; those of the last are normed.
    """

    logits: Tensor
    features: list[Tensor]


def dense_pass(vit: ReducingViT, images: Tensor, patches: Tensor | None) -> Pass:
    """A forward pass without a reduction.

    Args:
        vit: student or teacher.
        images: normalised, [B, 3, H, W].
        patches: int64 [B, n], the patches of each image to use; None for all.
    """
    x, place = _chosen(vit.embed(images), patches, vit.geometry.prefix_tokens)
    features = [x]
    for block in range(vit.geometry.depth):
        x = vit.advance(x, block, block + 1, place)
        features.append(x)
    features[-1] = vit.vit.norm(x)
    logits: Tensor = vit.vit.forward_head(features[-1])
    return Pass(logits.float(), features)


def reduced_pass(vit: ReducingViT, images: Tensor, plan: ReductionPlan) -> Pass:
    """A forward pass by a plan; it keeps features up to the first reduction."""
    first = min(b for b, r in zip(plan.blocks, plan.removed, strict=True) if r)
    x = vit.embed(images)
    features = [x]
    for block in range(first):
        x = vit.advance(x, block, block + 1)
        features.append(x)
    return Pass(vit.run(x, [(plan, len(images))], start=first).logits, features)


def random_patches(images: int, patches: int, count: int, generator: torch.Generator) -> Tensor:
    """A random choice of `count` patches for each image, in their order, int64 [B, count]."""
    return torch.rand(images, patches, generator=generator).topk(count, dim=1).indices.sort(dim=1).values


def _chosen(x: Tensor, patches: Tensor | None, prefix: int) -> tuple[Tensor, Tensor | None]:
    """The tokens [B, P+n, C] of chosen patches, and the place of each at the input, int64 [B, P+n]."""
    if patches is None:
        return x, None
    front = torch.arange(prefix, device=x.device).expand(len(x), prefix)
    keep = torch.cat((front, patches.to(x.device) + prefix), dim=1)
    return x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1])), keep
