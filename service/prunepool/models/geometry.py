"""The numbers of a Vision Transformer that fix its token counts and its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from prunepool.reduction.plan import ReductionPlan, removable


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a plan and its cost depend on.

    Attributes:
        depth: blocks.
        width: channels of a token.
        hidden: channels inside the MLP.
        patches: patch tokens at the input.
        grid: rows and columns of patches.
        patch_inputs: numbers in one patch (3 · 16 · 16).
        prefix: tokens in front of the patches: class, distillation, registers.
        classes: outputs of all heads together.
    """

    depth: int
    width: int
    hidden: int
    patches: int
    grid: tuple[int, int]
    patch_inputs: int
    prefix: int
    classes: int

    @classmethod
    def of(cls, vit: Any) -> Geometry:
        """Read off a timm VisionTransformer."""
        heads = [vit.head, getattr(vit, "head_dist", None)]
        kernel = vit.patch_embed.proj.weight
        return cls(
            depth=len(vit.blocks),
            width=vit.embed_dim,
            hidden=vit.blocks[0].mlp.fc1.out_features,
            patches=vit.patch_embed.num_patches,
            grid=tuple(vit.patch_embed.grid_size),
            patch_inputs=kernel[0].numel(),
            prefix=vit.num_prefix_tokens,
            classes=sum(head.out_features for head in heads if isinstance(head, nn.Linear)),
        )

    @property
    def tokens(self) -> int:
        """N, tokens at the input, prefix included."""
        return self.patches + self.prefix

    def tokens_per_block(self, plan: ReductionPlan) -> tuple[tuple[int, int], ...]:
        """Tokens that enter each block's attention, and its MLP."""
        removed = dict(zip(plan.blocks, plan.removed, strict=True))
        counts = []
        n = self.tokens
        for block in range(self.depth):
            after = n - removable(removed.get(block, 0), n, self.prefix)
            counts.append((n, after))
            n = after
        return tuple(counts)

    def gmacs(self, plan: ReductionPlan) -> float:
        """Billions of multiply-accumulates for one image.

        Counts what every paper counts: matrix products, with attention over the tokens that enter a block
        and the MLP over those that leave it. Scoring and matching are not in it; they are under 1 %.
        """
        c, total = self.width, self.patches * self.patch_inputs * self.width + self.classes * self.width
        for n, after in self.tokens_per_block(plan):
            total += 4 * n * c * c + 2 * n * n * c + 2 * after * c * self.hidden
        return total / 1e9
