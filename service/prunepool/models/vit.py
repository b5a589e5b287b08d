"""A timm Vision Transformer run on fewer and fewer tokens, several reduction plans in one pass.

timm's modules are called, never changed. The tokens of all images lie packed in one [Σ tokens, C] matrix, so
linear layers, norms and MLPs run once for the whole batch, whatever its mix of plans; only attention and the
reduction look at the rectangles [images, tokens, C] that it is made of. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.models.geometry import Geometry
from prunepool.models.packing import Rectangle, joined, passes_of, prefix_rows, runs_of, sizes_of
from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, removable
from prunepool.reduction.reduction import Reduced, reduce_tokens
from prunepool.reduction.tokens import Stage

#: On a processor, the widest activation of a pass. A few such blocks are taken and freed layer after layer: they
#: have to fit, together, into what the process keeps (prunepool.machine), or the system clears their pages anew.
_KEPT_BYTES = 16 * 2**20

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


class ReducingViT(nn.Module):
    """Wraps a timm ViT so that each image of a batch can follow its own reduction plan.

    Args:
        vit: a timm `VisionTransformer` of a kind that :func:`prunepool.models.support.check` lets pass.
        reduce: carries out one reducing step; another one than PPT's own is for experiments.
    """

    def __init__(self, vit: nn.Module, reduce: Callable[..., Reduced] = reduce_tokens) -> None:
        super().__init__()
        self.vit: Any = vit
        self._reduce_tokens = reduce
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
        return self.run(self.embed(images), groups)

    def one_pass(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        """:meth:`forward` in one go, with no look at its counts, which an exporter may have left open."""
        return self._pass(self.embed(images), groups, 0, 0)

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter the first block, [B, N, C], of normalised images [B, 3, H, W]."""
        vit = self.vit
        tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images.to(self.dtype)))))
        return tokens

    def advance(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Tokens [B, N, C] that enter block `start`, as they enter block `stop` when none of them leaves."""
        rectangles = [Rectangle(DENSE, 0, *tokens.shape[:2])]
        x = tokens.flatten(0, 1)
        for index in range(start, stop):
            x, rectangles = self._block(index, self.vit.blocks[index], x, rectangles, [])
        return x.view_as(tokens)

    def run(self, tokens: Tensor, groups: Sequence[Group], start: int = 0) -> Forward:
        """Logits from tokens on their way.

        Several plans that begin late can share what comes before: :meth:`embed`, :meth:`advance`, then this.

        Args:
            tokens: that enter block `start`, [B, N, C], of which none has left yet.
            groups: as in :meth:`forward`.
            start: index of the first block to compute.

        Raises:
            PlanError: as :meth:`forward`, or a plan that reduces before `start`.
        """
        images = tokens.shape[0]
        if sum(count for _, count in groups) != images:
            raise PlanError("groups", [count for _, count in groups], f"summing to {images} images")
        for plan, _ in groups:
            if plan.blocks and plan.blocks[-1] >= self.geometry.depth:
                raise PlanError("blocks", plan.blocks, f"below the model's depth of {self.geometry.depth}")
            if any(b < start and r for b, r in zip(plan.blocks, plan.removed, strict=True)):
                raise PlanError("blocks", plan.blocks, f"{start}, where these tokens are, or later")
        passes: list[Forward] = []
        first = 0
        for part in passes_of(groups, self._images_at_once(tokens)):
            count = sum(count for _, count in part)
            passes.append(self._pass(tokens[first : first + count], part, start, first))
            first += count
        stages = sorted((s for p in passes for s in p.stages), key=lambda stage: (stage.block, stage.first))
        return Forward(joined([p.logits for p in passes]), stages)

    def _images_at_once(self, tokens: Tensor) -> int:
        """Images of tokens [B, N, C] in a pass: on a processor, as many as keep each block small enough."""
        if tokens.device.type != "cpu":
            return max(1, tokens.shape[0])
        widest = max(self.geometry.hidden, 3 * self.geometry.width) * tokens.element_size()
        return max(1, _KEPT_BYTES // (tokens.shape[1] * widest))

    def _pass(self, tokens: Tensor, groups: Sequence[Group], start: int, first: int) -> Forward:
        """:meth:`run` for part of a batch, of which `first` is the first image."""
        vit = self.vit
        images = tokens.shape[0]
        rectangles: list[Rectangle] = []
        for plan, count in groups:
            rectangles.append(Rectangle(plan, first, count, tokens.shape[1]))
            first += count
        x = tokens.flatten(0, 1)
        stages: list[Stage] = []
        last = len(vit.blocks) - 1
        for index, block in enumerate(vit.blocks):
            if index < start:
                continue
            if index == last and stages and not any(self._removed(index, r) for r in rectangles):
                x = self._last_block(block, x, rectangles)
            else:
                x, rectangles = self._block(index, block, x, rectangles, stages)
        prefix = self.geometry.prefix
        if x.shape[0] > images * prefix:
            x = prefix_rows(x, rectangles, prefix)
        logits: Tensor = vit.forward_head(vit.norm(x.view(images, prefix, -1)))
        return Forward(logits.float(), stages)

    def _block(
        self, index: int, block: Any, x: Tensor, rectangles: list[Rectangle], stages: list[Stage]
    ) -> tuple[Tensor, list[Rectangle]]:
        """One transformer block on the packed tokens [Σ tokens, C]; appends what it reduced to `stages`."""
        attention = block.attn
        qkv = attention.qkv(block.norm1(x))
        heads: list[Heads] = []
        mixed: list[Tensor] = []
        runs = runs_of(rectangles)
        for part, run in zip(
            qkv.split_with_sizes([sum(r.rows for r in run) for run in runs]), runs, strict=True
        ):
            q, k, v = _heads(part, (-1, run[0].tokens, 3, attention.num_heads, attention.head_dim))
            q, k = attention.q_norm(q), attention.k_norm(k)
            mixed.append(_attend(q, k, v, sizes_of(run)))
            counts = [r.images for r in run]
            heads += zip(
                q.split_with_sizes(counts),
                k.split_with_sizes(counts),
                v.split_with_sizes(counts),
                strict=True,
            )
        x = x + block.ls1(attention.proj(attention.norm(joined(mixed))))
        x, rectangles = self._reduce(index, attention.scale, x, rectangles, heads, stages)
        return x + block.ls2(block.mlp(block.norm2(x))), rectangles

    def _last_block(self, block: Any, x: Tensor, rectangles: Sequence[Rectangle]) -> Tensor:
        """The last block for the prefix tokens alone, [B·P, C]: the head looks at no other.

        The others still give keys and values. A batch in which nothing leaves does not come here, so that it
        stays timm's own to the bit: a matrix product of other shape may round differently.
        """
        attention = block.attn
        prefix = self.geometry.prefix
        width = attention.num_heads * attention.head_dim
        weight, bias = attention.qkv.weight, attention.qkv.bias
        y = block.norm1(x)
        front = prefix_rows(y, rectangles, prefix)
        queries = F.linear(front, weight[:width], None if bias is None else bias[:width])
        pairs = F.linear(y, weight[width:], None if bias is None else bias[width:])
        mixed = []
        runs = runs_of(rectangles)
        rows = pairs.split_with_sizes([sum(r.rows for r in run) for run in runs])
        heads = (-1, prefix, 1, attention.num_heads, attention.head_dim)
        counts = [sum(r.images for r in run) * prefix for run in runs]
        for part, own, run in zip(rows, queries.split_with_sizes(counts), runs, strict=True):
            (q,) = _heads(own, heads)
            k, v = _heads(part, (-1, run[0].tokens, 2, attention.num_heads, attention.head_dim))
            mixed.append(_attend(attention.q_norm(q), attention.k_norm(k), v, sizes_of(run)))
        front = prefix_rows(x, rectangles, prefix)
        front = front + block.ls1(attention.proj(attention.norm(joined(mixed))))
        out: Tensor = front + block.ls2(block.mlp(block.norm2(front)))
        return out

    def _reduce(
        self,
        index: int,
        scale: float,
        x: Tensor,
        rectangles: list[Rectangle],
        heads: Sequence[Heads],
        stages: list[Stage],
    ) -> tuple[Tensor, list[Rectangle]]:
        """Let tokens leave from the rectangles whose plan says so at this block."""
        removed = [self._removed(index, r) for r in rectangles]
        if not any(removed):
            return x, rectangles
        parts: list[Tensor] = []
        left: list[Rectangle] = []
        rows = x.split_with_sizes([r.rows for r in rectangles])
        for part, r, (q, k, v), count in zip(rows, rectangles, heads, removed, strict=True):
            if count == 0:
                parts.append(part)
                left.append(r)
                continue
            reduced = self._reduce_tokens(
                part.view(r.images, r.tokens, -1),
                r.size,
                query=q,
                key=k,
                value=v,
                scale=scale,
                removed=count,
                threshold=r.plan.thresholds[r.plan.blocks.index(index)],
                prefix=self.geometry.prefix,
                method=r.plan.method,
            )
            stages.append(Stage(index, r.first, reduced.departure, reduced.pruned, reduced.variance))
            parts.append(reduced.tokens.flatten(0, 1))
            left.append(Rectangle(r.plan, r.first, r.images, r.tokens - count, reduced.size))
        return joined(parts), left

    def _removed(self, index: int, r: Rectangle) -> int:
        """How many tokens leave a rectangle at block `index`."""
        if index not in r.plan.blocks:
            return 0
        return removable(r.plan.removed[r.plan.blocks.index(index)], r.tokens, self.geometry.prefix)


def _heads(rows: Tensor, shape: tuple[int, int, int, int, int]) -> tuple[Tensor, ...]:
    """Queries, keys, values or some of them, each [B, H, N, D], from packed rows.

    Args:
        rows: what a linear layer gave, [B·N, S·H·D].
        shape: (B, N, S, H, D); S tensors are returned.
    """
    return rows.view(shape).permute(2, 0, 3, 1, 4).unbind(0)


def _attend(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None) -> Tensor:
    """Proportional attention of [B, H, N, D] heads, as packed rows [B·N, H·D].

    While every token stands for one patch there is no bias, so that the flash kernels can run.
    """
    bias = None if size is None else size.log().to(q.dtype)[:, None, None, :]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return y.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)
