"""The geometry of a Vision Transformer: the numbers that determine its token counts and its cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

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
        gated_mlp: whether the MLP has a third matrix, for a gate (SwiGLU).
        patch_size: height and width of a patch, in pixels.
        patch_grid: rows and columns of patches at the input.
        prefix_tokens: tokens in front of the patches: class, distillation, registers.
        classes: outputs of all heads together; a distilled model has two heads. 0 without a head: then the output
            is the pooled vector, of `width` channels.
        pool: how one vector is made of the tokens: the class token, the mean of the patches, attention of a
            learned query (`map`), the maximum, the mean of maximum and mean, or class token and mean side by
            side (`tokenavg`).
        positions: where a token's position enters: added at the `input`, or inside the attention of every block, as
            a rotation or as a bias by distance.
        stem_macs: multiply-accumulates of convolutions in front of the patches' projection; 0 without any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: Depth
    width: Count
    heads: Count
    mlp_width: Count
    gated_mlp: bool = False
    patch_size: tuple[Count, Count]
    patch_grid: tuple[Count, Count]
    prefix_tokens: Annotated[int, Field(ge=0)]
    classes: Annotated[int, Field(ge=0, le=1 << 20)]
    pool: Literal["token", "avg", "map", "max", "avgmax", "tokenavg"] = "token"
    positions: Literal["input", "rotary", "relative"] = "input"
    stem_macs: Annotated[int, Field(ge=0, le=1 << 50)] = 0

    @model_serializer(mode="wrap")
    def _readable_by_older_releases(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out keys that older releases do not know, where they say what those take for granted."""
        written: dict[str, object] = write(self)
        usual = {"gated_mlp": False, "pool": "token", "positions": "input", "stem_macs": 0}
        return {key: value for key, value in written.items() if key not in usual or value != usual[key]}

    @property
    def outputs(self) -> int:
        """Outputs of all heads together, or the channels of an embedding."""
        return self.classes or self.features

    @property
    def features(self) -> int:
        """Channels that enter the head."""
        return 2 * self.width if self.pool == "tokenavg" else self.width

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
        patch = self.patch_size[0] * self.patch_size[1]
        total = self.stem_macs or self.patches * 3 * patch * c
        total += self.classes * self.features
        matrices = 3 if self.gated_mlp else 2
        for n, after in self.tokens_per_block(plan):
            total += 4 * n * c * c + 2 * n * n * c + matrices * after * c * self.mlp_width
        if self.pool == "map":
            left = self.tokens_per_block(plan)[-1][1]
            total += 2 * left * c * c + 2 * left * c + c * c + 2 * c * self.mlp_width
        return total / 1e9
