"""A timm Vision Transformer run on fewer and fewer tokens, several reduction plans in one pass.

timm's modules are called, never changed. The tokens of all images lie packed in one [Σ tokens, C] matrix, so
linear layers, norms and MLPs run once for the whole batch, for any mix of plans; only attention and the
reduction work on its ragged segments [images, tokens, C]. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prunepool.models.attention import Heads, prefix_attention, self_attention
from prunepool.models.geometry import network_geometry
from prunepool.models.packing import RaggedSegment, joined, passes_of, prefix_rows, split_rows
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, removable
from prunepool.reduction.step import StageRecord, Step, StepInputs

#: Upper limit of a pass's widest activation on a CPU, in bytes. Every layer allocates and frees a few such blocks.
#: Together they must fit in the heap malloc retains (see prunepool.machine); otherwise every layer page-faults.
_KEPT_BYTES = 16 * 2**20

#: Neighbouring images of one plan in a batch: the plan and the number of images.
Group = tuple[ReductionPlan, int]


class Forward(NamedTuple):
    """What a forward pass returns.

    Attributes:
        logits: float32 [B, classes], in the order of the images.
        stages: every reduction that was carried out, ordered by block, then by image.
    """

    logits: Tensor
    stages: list[StageRecord]


class ReducingViT(nn.Module):
    """Wraps a timm ViT so that each image of a batch can follow its own reduction plan.

    Args:
        vit: a timm `VisionTransformer` that :func:`prunepool.models.plain_vit.check` accepts.
        step: replaces the step of every plan's method; for exporters and experiments.
    """

    def __init__(self, vit: nn.Module, step: Step | None = None) -> None:
        super().__init__()
        self.vit: Any = vit
        # Loaded eagerly: a compiler tracing the forward pass cannot trace an import.
        self._steps = {name: step or method.load() for name, method in METHODS.items()}
        self.geometry = network_geometry(vit)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        dtype = self.vit.cls_token.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    def forward(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        """Logits of a batch.

        Args:
            images: normalised, [B, 3, H, W]; images of one plan are neighbours.
            groups: the plans and how many images follow each, in order; the counts sum to B.

        Raises:
            PlanError: counts that do not sum to B, or a plan for more blocks than the model has.
        """
        return self.run(self.embed(images), groups)

    def one_pass(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        """:meth:`forward` in one pass, without checking the counts, which are symbols for an exporter."""
        return self._pass(self.embed(images), groups, 0, 0)

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter the first block, [B, N, C], of normalised images [B, 3, H, W]."""
        vit = self.vit
        tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images.to(self.dtype)))))
        return tokens

    def advance(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Run blocks `start` … `stop` − 1 without a reduction: tokens [B, N, C] to tokens [B, N, C]."""
        segments = [RaggedSegment(DENSE, 0, *tokens.shape[:2])]
        x = tokens.flatten(0, 1)
        for index in range(start, stop):
            x, segments = self._block(index, self.vit.blocks[index], x, segments, [])
        return x.view_as(tokens)

    def run(self, tokens: Tensor, groups: Sequence[Group], start: int = 0) -> Forward:
        """Logits from the tokens that enter a block.

        Plans that first reduce at a late block can share what comes before: :meth:`embed`, :meth:`advance`, then
        this.

        Args:
            tokens: that enter block `start`, [B, N, C]; none has been removed yet.
            groups: as in :meth:`forward`.
            start: index of the first block to compute.

        Raises:
            PlanError: as :meth:`forward`, or a plan that reduces before `start`.
        """
        batch_size = tokens.shape[0]
        if sum(count for _, count in groups) != batch_size:
            raise PlanError("groups", [count for _, count in groups], f"summing to {batch_size} images")
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
        """Images of tokens [B, N, C] in a pass: on a CPU, as many as `_KEPT_BYTES` allows."""
        if tokens.device.type != "cpu":
            return max(1, tokens.shape[0])
        widest = max(self.geometry.mlp_width, 3 * self.geometry.width) * tokens.element_size()
        return max(1, _KEPT_BYTES // (tokens.shape[1] * widest))

    def _pass(self, tokens: Tensor, groups: Sequence[Group], start: int, first: int) -> Forward:
        """:meth:`run` for a part of a batch; `first` is the index of its first image."""
        vit = self.vit
        batch_size = tokens.shape[0]
        segments: list[RaggedSegment] = []
        for plan, count in groups:
            segments.append(RaggedSegment(plan, first, count, tokens.shape[1]))
            first += count
        x = tokens.flatten(0, 1)
        stages: list[StageRecord] = []
        last = len(vit.blocks) - 1
        for index, block in enumerate(vit.blocks):
            if index < start:
                continue
            if index == last and stages and not any(self._removed(index, s) for s in segments):
                x = self._last_block(block, x, segments)
            else:
                x, segments = self._block(index, block, x, segments, stages)
        prefix = self.geometry.prefix_tokens
        if x.shape[0] > batch_size * prefix:
            x = prefix_rows(x, segments, prefix)
        logits: Tensor = vit.forward_head(vit.norm(x.view(batch_size, prefix, -1)))
        return Forward(logits.float(), stages)

    def _block(
        self, index: int, block: Any, x: Tensor, segments: list[RaggedSegment], stages: list[StageRecord]
    ) -> tuple[Tensor, list[RaggedSegment]]:
        """One transformer block on the packed tokens [Σ tokens, C]; appends its reductions to `stages`."""
        mixed, segment_heads = self_attention(block.attn, block.norm1(x), segments)
        x = x + block.ls1(mixed)
        x, segments = self._reduce(index, block.attn.scale, x, segments, segment_heads, stages)
        return x + block.ls2(block.mlp(block.norm2(x))), segments

    def _last_block(self, block: Any, x: Tensor, segments: Sequence[RaggedSegment]) -> Tensor:
        """The last block for the prefix tokens alone, [B·P, C]: the head reads no others.

        The other tokens still provide keys and values. A batch without any reduction does not take this path, so
        that its logits equal timm's to the bit: a matrix product of another shape may round differently.
        """
        prefix = self.geometry.prefix_tokens
        mixed = prefix_attention(block.attn, block.norm1(x), segments, prefix)
        front = prefix_rows(x, segments, prefix) + block.ls1(mixed)
        out: Tensor = front + block.ls2(block.mlp(block.norm2(front)))
        return out

    def _reduce(
        self,
        index: int,
        scale: float,
        x: Tensor,
        segments: list[RaggedSegment],
        segment_heads: Sequence[Heads],
        stages: list[StageRecord],
    ) -> tuple[Tensor, list[RaggedSegment]]:
        """Remove tokens from the segments whose plan reduces at this block."""
        removed = [self._removed(index, s) for s in segments]
        if not any(removed):
            return x, segments
        parts: list[Tensor] = []
        left: list[RaggedSegment] = []
        rows = split_rows(x, [s.rows for s in segments])
        for part, s, (q, k, v), count in zip(rows, segments, segment_heads, removed, strict=True):
            if count == 0:
                parts.append(part)
                left.append(s)
                continue
            step = self._steps[s.plan.method]
            reduced = step(
                StepInputs(
                    x=part.view(s.images, s.tokens, -1),
                    size=s.size,
                    query=q,
                    key=k,
                    value=v,
                    scale=scale,
                    removed=count,
                    threshold=s.plan.thresholds[s.plan.blocks.index(index)],
                    prefix=self.geometry.prefix_tokens,
                )
            )
            stages.append(StageRecord(index, s.first, reduced.indices, reduced.pruned, reduced.variance))
            parts.append(reduced.tokens.flatten(0, 1))
            left.append(RaggedSegment(s.plan, s.first, s.images, s.tokens - count, reduced.size))
        return joined(parts), left

    def _removed(self, index: int, segment: RaggedSegment) -> int:
        """Tokens to remove from each image of a segment at block `index`."""
        plan = segment.plan
        if index not in plan.blocks:
            return 0
        return removable(plan.removed[plan.blocks.index(index)], segment.tokens, self.geometry.prefix_tokens)
