"""timm's `VisionTransformer`: ViT, DeiT, CLIP, SigLIP, DINO, DINOv2, MAE, AIMv2 and hybrids with convolutions.

:class:`prunepool.models.vit.ReducingViT` computes what timm computes with them, except for the tokens it removes.
This file decides for which networks that holds.
"""

from __future__ import annotations

from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from prunepool.models.family import Family
from prunepool.models.parts import Parts, check_parts
from prunepool.models.vit import ReducingViT

_PARTS = Parts(
    networks=(VisionTransformer, VisionTransformerDistilled),
    # Not ResPostBlock: without a class token, timm projects rows first that are not contiguous, which rounds
    # otherwise.
    blocks=(Block,),
    attentions=(Attention,),
)


def check(vit: nn.Module, name: str) -> None:
    """Refuse a network that `ReducingViT` would compute differently from timm.

    Class, distillation and register tokens or none of them, every pooling but PRR, layer scale, q/k norms, SwiGLU,
    and networks without a head are supported.

    Args:
        vit: a timm model.
        name: its name, for the message.

    Raises:
        ArchitectureUnsupported: names the part that is not supported.
    """
    check_parts(vit, name, _PARTS)


PLAIN_VIT = Family(
    title="plain Vision Transformer",
    timm_modules=("vision_transformer", "deit", "vision_transformer_hybrid"),
    check=check,
    wrap=ReducingViT,
)
