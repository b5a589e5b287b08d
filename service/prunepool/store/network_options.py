"""What a network has otherwise than its architecture: a checkpoint's own sizes, tokens, norms and activation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from prunepool.store.geometry import Count, Depth
from prunepool.store.manifest_fields import STRICT


class NetworkOptions(BaseModel):
    """Arguments of `timm.create_model` that a manifest's network is made with; None leaves the architecture's own.

    Attributes:
        patch_size: height and width of a patch, in pixels.
        embed_dim: channels of a token.
        depth: transformer blocks.
        num_heads: attention heads of a block.
        mlp_ratio: channels inside the MLP, as a multiple of a token's.
        class_token: whether there is one.
        reg_tokens: register tokens.
        no_embed_class: whether class and register tokens have no position embedding.
        global_pool: what makes one vector of the tokens; `tokenavg`, the class token and the mean of the patches
            side by side, is not timm's.
        pool_include_prefix: whether class and register tokens are averaged with the others.
        pre_norm: whether there is a norm in front of the blocks.
        final_norm: whether there is one behind them.
        fc_norm: whether that one comes after pooling.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        proj_bias: whether the projections of attention and MLP have a bias.
        init_values: any number gives layer scale, whose values come from the weights.
        act_layer: the MLP's activation.
        norm_eps: ε of every layer norm; not timm's argument, but set on its modules.
    """

    model_config = STRICT

    patch_size: Annotated[int, Field(gt=0, le=1024)] | None = None
    embed_dim: Count | None = None
    depth: Depth | None = None
    num_heads: Count | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None
    class_token: bool | None = None
    reg_tokens: Annotated[int, Field(ge=0, le=1024)] | None = None
    no_embed_class: bool | None = None
    global_pool: Literal["token", "avg", "avgmax", "max", "map", "tokenavg"] | None = None
    pool_include_prefix: bool | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    fc_norm: bool | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    proj_bias: bool | None = None
    init_values: Annotated[float, Field(gt=0, le=1)] | None = None
    act_layer: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] | None = None
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] | None = None

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        """Refuse heads that do not divide the channels."""
        if self.embed_dim and self.num_heads and self.embed_dim % self.num_heads:
            raise ValueError(
                f"network.num_heads must divide embed_dim, {self.embed_dim}; got {self.num_heads}"
            )
        return self

    def for_timm(self) -> dict[str, object]:
        """The arguments of `timm.create_model` that are set."""
        return self.model_dump(exclude_none=True, exclude={"norm_eps"})
