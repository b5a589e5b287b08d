"""A timm Vision Transformer run on fewer and fewer tokens, several reduction plans in one pass.

timm's modules are called, never changed. The tokens of all images lie packed in one [Σ tokens, C] matrix, so
linear layers, norms and MLPs run once for the whole batch, whatever its mix of plans; only attention and the
reduction look at the rectangles [images, tokens, C] that it is made of. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.models.geometry import Geometry
from prunepool.ppt.plan import PlanError, ReductionPlan, removable
from prunepool.ppt.reduction import reduce_tokens
from prunepool.ppt.tokens import Stage

#: Images of one plan that lie next to each other in a batch: the plan and how many.
Group = tuple[ReductionPlan, int]

#: Queries, keys and values, each [B, H, N, D].
Heads = tuple[Tensor, Tensor, Tensor]


class Forward(NamedTuple):
    """What a forward pass gives.

    Attributes:
        logits: float32 [B, classes], in the order of the images.
        stages: every reduction that was carried out, in order of block, then of image.
    """

    logits: Tensor
    stages: list[Stage]


@dataclass(slots=True)
class _Rectangle:
    """Images of one plan: `images` × `tokens` rows of the packed matrix."""

    plan: ReductionPlan
    first: int
    images: int
    tokens: int
    size: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.images * self.tokens


class ReducingViT(nn.Module):
    """Wraps a timm ViT so that each image of a batch can follow its own reduction plan.

    Args:
        vit: a timm `VisionTransformer` of a kind that :func:`prunepool.models.support.check` lets pass.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit: Any = vit
        self.geometry = Geometry.of(vit)

    @property
    def dtype(self) -> torch.dtype:
        """The number format the model computes in."""
        dtype = self.vit.cls_token.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    def forward(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        """Logits of a batch.

        Args:
            images: normalised, [B, 3, H, W]; images of one plan lie next to each other.
            groups: the plans and how many images follow each, in order; the counts sum to B.

        Raises:
            PlanError: counts that do not sum to B, or a plan for more blocks than the model has.
        """
        if sum(count for _, count in groups) != images.shape[0]:
            raise PlanError("groups", [count for _, count in groups], f"summing to {images.shape[0]} images")
        for plan, _ in groups:
            if plan.blocks and plan.blocks[-1] >= self.geometry.depth:
                raise PlanError("blocks", plan.blocks, f"below the model's depth of {self.geometry.depth}")
        vit = self.vit
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images.to(self.dtype)))))
        rectangles: list[_Rectangle] = []
        first = 0
        for plan, count in groups:
            if count:
                rectangles.append(_Rectangle(plan, first, count, tokens.shape[1]))
                first += count
        x = tokens.reshape(-1, tokens.shape[-1])
        stages: list[Stage] = []
        for index, block in enumerate(vit.blocks):
            x, rectangles = self._block(index, block, x, rectangles, stages)
        return Forward(self._head(x, rectangles), stages)

    def _block(
        self, index: int, block: Any, x: Tensor, rectangles: list[_Rectangle], stages: list[Stage]
    ) -> tuple[Tensor, list[_Rectangle]]:
        """One transformer block on the packed tokens [Σ tokens, C]; appends what it reduced to `stages`."""
        attention = block.attn
        qkv = attention.qkv(block.norm1(x))
        heads: list[Heads] = []
        mixed: list[Tensor] = []
        runs = _runs(rectangles)
        for part, run in zip(
            qkv.split_with_sizes([sum(r.rows for r in run) for run in runs]), runs, strict=True
        ):
            q, k, v = _heads(attention, part, run[0].tokens)
            mixed.append(_attend(q, k, v, _sizes(run)))
            counts = [r.images for r in run]
            heads += zip(
                q.split_with_sizes(counts),
                k.split_with_sizes(counts),
                v.split_with_sizes(counts),
                strict=True,
            )
        x = x + block.ls1(attention.proj(attention.norm(_joined(mixed))))
        x, rectangles = self._reduce(index, attention.scale, x, rectangles, heads, stages)
        return x + block.ls2(block.mlp(block.norm2(x))), rectangles

    def _reduce(
        self,
        index: int,
        scale: float,
        x: Tensor,
        rectangles: list[_Rectangle],
        heads: Sequence[Heads],
        stages: list[Stage],
    ) -> tuple[Tensor, list[_Rectangle]]:
        """Let tokens leave from the rectangles whose plan says so at this block."""
        removed = [self._removed(index, r) for r in rectangles]
        if not any(removed):
            return x, rectangles
        parts: list[Tensor] = []
        left: list[_Rectangle] = []
        rows = x.split_with_sizes([r.rows for r in rectangles])
        for part, r, (q, k, v), count in zip(rows, rectangles, heads, removed, strict=True):
            if count == 0:
                parts.append(part)
                left.append(r)
                continue
            tokens, size, departure, pruned, variance = reduce_tokens(
                part.view(r.images, r.tokens, -1),
                r.size,
                query=q,
                key=k,
                value=v,
                scale=scale,
                removed=count,
                threshold=r.plan.thresholds[r.plan.blocks.index(index)],
                prefix=self.geometry.prefix,
            )
            stages.append(Stage(index, r.first, departure, pruned, variance))
            parts.append(tokens.flatten(0, 1))
            left.append(_Rectangle(r.plan, r.first, r.images, r.tokens - count, size))
        return _joined(parts), left

    def _removed(self, index: int, r: _Rectangle) -> int:
        """How many tokens leave a rectangle at block `index`."""
        if index not in r.plan.blocks:
            return 0
        return removable(r.plan.removed[r.plan.blocks.index(index)], r.tokens, self.geometry.prefix)

    def _head(self, x: Tensor, rectangles: Sequence[_Rectangle]) -> Tensor:
        """Logits, float32 [B, classes]; only the prefix tokens of each image are looked at."""
        prefix = self.geometry.prefix
        rows = x.split_with_sizes([r.rows for r in rectangles])
        front = [
            part.view(r.images, r.tokens, -1)[:, :prefix] for part, r in zip(rows, rectangles, strict=True)
        ]
        logits: Tensor = self.vit.forward_head(self.vit.norm(_joined(front)))
        return logits.float()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts along their first axis, without a copy where there is only one."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def _runs(rectangles: Sequence[_Rectangle]) -> list[list[_Rectangle]]:
    """Neighbouring rectangles of one token count, which share one attention call."""
    return [list(run) for _, run in groupby(rectangles, key=lambda r: (r.tokens, r.size is None))]


def _sizes(run: Sequence[_Rectangle]) -> Tensor | None:
    """Patches behind each token of a run, float32 [B, N]; None while all are 1."""
    sizes = [r.size for r in run if r.size is not None]
    return _joined(sizes) if sizes else None


def _heads(attention: Any, qkv: Tensor, tokens: int) -> Heads:
    """Queries, keys and values, each [B, H, N, D], from packed rows [B·N, 3·H·D]."""
    shape = (-1, tokens, 3, attention.num_heads, attention.head_dim)
    q, k, v = qkv.view(shape).permute(2, 0, 3, 1, 4).unbind(0)
    return attention.q_norm(q), attention.k_norm(k), v


def _attend(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None) -> Tensor:
    """Proportional attention of [B, H, N, D] heads, as packed rows [B·N, H·D].

    While every token stands for one patch there is no bias, so that the flash kernels can run.
    """
    bias = None if size is None else size.log().to(q.dtype)[:, None, None, :]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)
