"""The geometry of a Vision Transformer: the numbers that determine its token counts and its cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from prunepool.reduction.plan import ReductionPlan, removable

#: Far above any published network: what is computed from a manifest takes time and memory in proportion to these.
Count = Annotated[int, Field(gt=0, le=1 << 20)]
Depth = Annotated[int, Field(gt=0, le=1000)]


class Geometry(BaseModel):
    """The numbers that plans and costs depend on; the section `geometry` of a manifest.

    Attributes:
        depth: transformer blocks.
        width: channels of a token.
        heads: attention heads of a block.
        mlp_width: channels inside the MLP.
        patch_size: height and width of a patch, in pixels.
        patch_grid: rows and columns of patches at the input.
        prefix_tokens: tokens in front of the patches: class, distillation, registers.
        classes: outputs of all classification heads together; a distilled model has two heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: Depth
    width: Count
    heads: Count
    mlp_width: Count
    patch_size: tuple[Count, Count]
    patch_grid: tuple[Count, Count]
    prefix_tokens: Annotated[int, Field(ge=0)]
    classes: Count

    @property
    def patches(self) -> int:
        """T, patch tokens at the input."""
        return self.patch_grid[0] * self.patch_grid[1]

    @property
    def tokens(self) -> int:
        """N, tokens at the input, prefix included."""
        return self.patches + self.prefix_tokens

    def tokens_per_block(self, plan: ReductionPlan) -> tuple[tuple[int, int], ...]:
        """For each block, the tokens that enter its attention and those that enter its MLP."""
        removed = dict(zip(plan.blocks, plan.removed, strict=True))
        counts = []
        n = self.tokens
        for block in range(self.depth):
            after = n - removable(removed.get(block, 0), n, self.prefix_tokens)
            counts.append((n, after))
            n = after
        return tuple(counts)

    def gmacs(self, plan: ReductionPlan) -> float:
        """Billions of multiply-accumulates for one image.

        Counts matrix products, as papers do: attention over the tokens that enter a block, the MLP over those that
        leave it. Scoring and matching are left out; they are under 1 %.
        """
        c = self.width
        pixels = 3 * self.patch_size[0] * self.patch_size[1]
        total = self.patches * pixels * c + self.classes * c
        for n, after in self.tokens_per_block(plan):
            total += 4 * n * c * c + 2 * n * n * c + 2 * after * c * self.mlp_width
        return total / 1e9
