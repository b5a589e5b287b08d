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
from prunepool.models.blocks import attention_branch, attention_input, mlp_branch
from prunepool.models.network_geometry import network_geometry
from prunepool.models.packing import (
    RaggedSegment,
    attention_calls,
    joined,
    passes_of,
    prefix_rows,
    sizes_of,
    split_rows,
)
from prunepool.models.pooling import answer
from prunepool.models.positions import Positions
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
        logits: float32 [B, classes], in the order of the images; [B, C] of a network without classes, whose
            answer is an embedding.
        stages: every reduction that was carried out, ordered by block, then by image.
    """

    logits: Tensor
    stages: list[StageRecord]


class ReducingViT(nn.Module):
    """Wraps a timm ViT so that each image of a batch can follow its own reduction plan.

    Args:
        vit: a timm `VisionTransformer` that :func:`prunepool.models.plain_vit.check` accepts; subclasses take what
            their family accepts.
        step: replaces the step of every plan's method; for exporters and experiments.
        exported: whether this is for an exporter. A plan's counts, which are symbols, are then taken as they are
            and not clipped to half of the patch tokens; and the last block always computes the prefix tokens alone,
            for a runtime of its own gives no logits that equal timm's to the bit.
    """

    def __init__(self, vit: nn.Module, step: Step | None = None, *, exported: bool = False) -> None:
        super().__init__()
        self.vit: Any = vit
        self._exported = exported
        # Loaded eagerly: a compiler tracing the forward pass cannot trace an import.
        self._steps = {name: step or method.load() for name, method in METHODS.items()}
        self.geometry = network_geometry(vit)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        parameter: Tensor = next(self.vit.parameters())
        return parameter.dtype

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

    def positions(self) -> Sequence[Positions]:
        """What each block adds to attention for the places of its tokens."""
        return (None,) * self.geometry.depth

    def advance(self, tokens: Tensor, start: int, stop: int, place: Tensor | None = None) -> Tensor:
        """Run blocks `start` … `stop` − 1 without a reduction: tokens [B, N, C] to tokens [B, N, C].

        Args:
            tokens: that enter block `start`.
            start: index of the first block to compute.
            stop: index of the first block not to compute.
            place: of each token at the input, int64 [B, N]; None where all are there.
        """
        segments = [RaggedSegment(DENSE, 0, tokens.shape[0], tokens.shape[1], None, place)]
        x = tokens.flatten(0, 1)
        positions = self.positions()
        for index in range(start, stop):
            x, segments = self._block(index, positions[index], x, segments, [])
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
        positions = self.positions()
        last = len(vit.blocks) - 1
        # Whether the head reads nothing but prefix tokens.
        front = self.geometry.pool == "token"
        for index in range(start, len(vit.blocks)):
            short = front and index == last and (stages or self._exported)
            if short and not any(self._removed(index, s) for s in segments):
                x = self._last_block(vit.blocks[index], positions[index], x, segments)
            else:
                x, segments = self._block(index, positions[index], x, segments, stages)
        return Forward(self._answer(x, segments, batch_size).float(), stages)

    def _answer(self, x: Tensor, segments: Sequence[RaggedSegment], batch_size: int) -> Tensor:
        """Logits [B, classes] of the tokens that leave the last block, [Σ tokens, C], or of prefix tokens alone."""
        if self.geometry.pool != "token":
            calls = attention_calls(segments)
            rows = split_rows(x, [sum(s.rows for s in call) for call in calls])
            parts = [
                answer(self.vit, part.view(-1, call[0].tokens, part.shape[-1]), sizes_of(call))
                for part, call in zip(rows, calls, strict=True)
            ]
            return joined(parts)
        prefix = self.geometry.prefix_tokens
        if x.shape[0] > batch_size * prefix:
            x = prefix_rows(x, segments, prefix)
        return answer(self.vit, x.view(batch_size, prefix, -1), None)

    def _block(
        self,
        index: int,
        positions: Positions,
        x: Tensor,
        segments: list[RaggedSegment],
        stages: list[StageRecord],
    ) -> tuple[Tensor, list[RaggedSegment]]:
        """One transformer block on the packed tokens [Σ tokens, C]; appends its reductions to `stages`."""
        block = self.vit.blocks[index]
        mixed, segment_heads = self_attention(block.attn, attention_input(block, x), segments, positions)
        x = x + attention_branch(block, mixed)
        x, segments = self._reduce(index, x, segments, segment_heads, stages, moves=positions is not None)
        return x + mlp_branch(block, x), segments

    def _last_block(
        self, block: Any, positions: Positions, x: Tensor, segments: Sequence[RaggedSegment]
    ) -> Tensor:
        """The last block for the prefix tokens alone, [B·P, C]: the head reads no others.

        The other tokens still provide keys and values. A batch without any reduction does not take this path, so
        that its logits equal timm's to the bit: a matrix product of another shape may round differently.
        """
        prefix = self.geometry.prefix_tokens
        mixed = prefix_attention(block.attn, attention_input(block, x), segments, prefix, positions)
        front = prefix_rows(x, segments, prefix) + attention_branch(block, mixed)
        return front + mlp_branch(block, front)

    def _reduce(
        self,
        index: int,
        x: Tensor,
        segments: list[RaggedSegment],
        segment_heads: Sequence[Heads],
        stages: list[StageRecord],
        *,
        moves: bool,
    ) -> tuple[Tensor, list[RaggedSegment]]:
        """Remove tokens from segments whose plan reduces at this block; `moves`: where they came from matters."""
        removed = [self._removed(index, s) for s in segments]
        if not any(removed):
            return x, segments
        parts: list[Tensor] = []
        left: list[RaggedSegment] = []
        rows = split_rows(x, [s.rows for s in segments])
        for part, s, heads, count in zip(rows, segments, segment_heads, removed, strict=True):
            if count == 0:
                parts.append(part)
                left.append(s)
                continue
            step = self._steps[s.plan.method]
            reduced = step(
                StepInputs(
                    x=part.view(s.images, s.tokens, -1),
                    size=s.size,
                    query=heads.query,
                    key=heads.key,
                    value=heads.value,
                    scale=self.vit.blocks[index].attn.scale,
                    removed=count,
                    threshold=s.plan.thresholds[s.plan.blocks.index(index)],
                    prefix=self.geometry.prefix_tokens,
                    bias=heads.bias,
                    class_token=self.geometry.pool == "token",
                    depth=index / self.geometry.depth,
                    grid=self.geometry.patch_grid,
                    counted=s.counted,
                )
            )
            place: Tensor | None = None
            if moves:
                keep = reduced.indices.keep
                place = keep if s.place is None else s.place.gather(1, keep)
            stages.append(
                StageRecord(
                    index, s.first, reduced.indices, reduced.pruned, reduced.variance, reduced.dropped
                )
            )
            parts.append(reduced.tokens.flatten(0, 1))
            now = s.tokens - count
            left.append(RaggedSegment(s.plan, s.first, s.images, now, reduced.size, place, reduced.counted))
        return joined(parts), left

    def _removed(self, index: int, segment: RaggedSegment) -> int:
        """Tokens to remove from each image of a segment at block `index`."""
        plan = segment.plan
        if index not in plan.blocks:
            return 0
        wanted = plan.removed[plan.blocks.index(index)]
        return wanted if self._exported else removable(wanted, segment.tokens, self.geometry.prefix_tokens)
