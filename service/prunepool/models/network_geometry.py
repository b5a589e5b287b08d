"""The geometry of a network, for its manifest."""

from __future__ import annotations

from typing import Any, Literal

import torch
from timm.layers import GluMlp, HybridEmbed, SwiGLU
from torch.utils.flop_counter import FlopCounterMode

from prunepool.models.pooling import POOLS, Pool, pool_of
from prunepool.store import Geometry


def network_geometry(vit: Any) -> Geometry:
    """Read the geometry off a network of timm's."""
    heads = [vit.head, getattr(vit, "head_dist", None)]
    mlp = vit.blocks[0].mlp
    embed = vit.patch_embed
    patch = tuple(embed.patch_size)
    if isinstance(embed, HybridEmbed):  # in pixels, not in features of the convolutions
        patch = tuple(side // count for side, count in zip(embed.img_size, embed.grid_size, strict=True))
    return Geometry(
        depth=len(vit.blocks),
        width=vit.embed_dim,
        heads=vit.blocks[0].attn.num_heads,
        mlp_width=mlp.fc2.in_features,
        gated_mlp=isinstance(mlp, SwiGLU | GluMlp),
        patch_size=patch,
        patch_grid=tuple(embed.grid_size),
        prefix_tokens=vit.num_prefix_tokens,
        classes=sum(getattr(head, "out_features", 0) for head in heads),
        pool=_pool(vit),
        positions=_positions(vit),
        stem_macs=_stem_macs(embed),
    )


def _positions(vit: Any) -> Literal["input", "rotary", "relative"]:
    if getattr(vit, "rope", None) is not None:
        return "rotary"
    own = getattr(vit.blocks[0].attn, "relative_position_bias_table", None)
    shared = getattr(vit, "rel_pos_bias", None)
    return "input" if own is None and shared is None else "relative"


def _pool(vit: Any) -> Pool:
    found = pool_of(vit)
    return next(pool for pool in POOLS if pool == found)  # a family refuses all others


def _stem_macs(embed: Any) -> int:
    """Multiply-accumulates of an embedding's convolutions, if it has a network of them; nothing is computed."""
    if not isinstance(embed, HybridEmbed):
        return 0
    shapes = {key: value.to("meta") for key, value in embed.state_dict().items()}
    images = torch.empty(1, embed.in_chans, *embed.img_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        torch.func.functional_call(embed, shapes, (images,))
    return int(counter.get_total_flops()) // 2
