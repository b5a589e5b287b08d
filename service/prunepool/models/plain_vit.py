"""Plain Vision Transformers of timm: ViT, DeiT and distilled DeiT, DeiT-3, ViT with registers.

:class:`prunepool.models.vit.ReducingViT` computes what timm computes with them, except for the tokens it removes.
This file decides for which networks that holds.
"""

from __future__ import annotations

from typing import Any

from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.family import Family
from prunepool.models.vit import ReducingViT

_LAYERS = (VisionTransformer, VisionTransformerDistilled)


def check(vit: nn.Module, name: str) -> None:
    """Refuse a network that `ReducingViT` would compute differently from timm.

    Layer scale, distillation and register tokens, and q/k norms are supported.

    Args:
        vit: a timm model.
        name: its name, for the message.

    Raises:
        ArchitectureUnsupported: names the part that is not supported.
    """
    model: Any = vit
    if type(vit) not in _LAYERS:
        raise ArchitectureUnsupported(
            f"{name} is a {type(vit).__name__}; only timm's VisionTransformer and VisionTransformerDistilled "
            "can be reduced"
        )
    if model.cls_token is None:
        raise ArchitectureUnsupported(f"{name} has no class token, which scores the tokens")
    if model.global_pool != "token" or model.attn_pool is not None:
        pool = "attention" if model.attn_pool is not None else model.global_pool
        raise ArchitectureUnsupported(
            f"{name} pools its features by {pool!r}; only those of the class token ('token') "
            "survive a reduction unchanged"
        )
    if not isinstance(model.head, nn.Linear):
        raise ArchitectureUnsupported(f"{name} has no classification head (num_classes is 0)")
    for index, block in enumerate(model.blocks):
        if type(block) is not Block:
            raise ArchitectureUnsupported(
                f"{name} is made of {type(block).__name__} (block {index}); "
                "only the plain Block can be reduced"
            )
        if type(block.attn) is not Attention:
            raise ArchitectureUnsupported(
                f"{name} uses {type(block.attn).__name__} (block {index}); "
                "only the plain Attention can be reduced"
            )
        if block.attn.gate is not None:
            raise ArchitectureUnsupported(
                f"{name} gates its attention (block {index}), which is not supported"
            )
    if len(model.blocks) < 4:
        raise ArchitectureUnsupported(f"{name} has {len(model.blocks)} blocks; at least 4 are needed")


PLAIN_VIT = Family(
    title="plain Vision Transformer",
    timm_modules=("vision_transformer", "deit"),
    check=check,
    wrap=ReducingViT,
)
