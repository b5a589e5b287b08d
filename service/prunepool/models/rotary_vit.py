"""timm's `Eva`: EVA, EVA-02, Perception Encoder, DINOv3, RoPE-ViT and others with rotary positions."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from prunepool.models.family import Family
from prunepool.models.parts import Parts, check_parts
from prunepool.models.positions import Positions, Rotary
from prunepool.models.vit import ReducingViT

_PARTS = Parts(networks=(Eva,), blocks=(EvaBlock, EvaBlockPostNorm), attentions=(EvaAttention, AttentionRope))


class RotaryViT(ReducingViT):
    """An `Eva` on fewer and fewer tokens, whose rotary positions travel with them."""

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter the first block, [B, N, C], of normalised images [B, 3, H, W]."""
        vit = self.vit
        x, _ = vit._pos_embed(vit.patch_embed(images.to(self.dtype)))
        tokens: Tensor = vit.norm_pre(x)
        return tokens

    def positions(self) -> Sequence[Positions]:
        """The angles of each block; most networks have the same in all."""
        vit = self.vit
        if vit.rope is None:
            return super().positions()
        if vit.dynamic_img_size or not hasattr(vit.rope, "feat_shape"):
            angles = vit.rope.get_embed(shape=vit.patch_embed.grid_size)
        else:
            angles = vit.rope.get_embed()
        own = angles if vit.rope_mixed else [angles] * self.geometry.depth
        prefix = self.geometry.prefix_tokens
        half = vit.blocks[0].attn.rotate_half
        return [Rotary(one, prefix, half) for one in own]


def check(vit: nn.Module, name: str) -> None:
    """Refuse a network that :class:`RotaryViT` would compute differently from timm.

    Args:
        vit: a timm model.
        name: its name, for the message.

    Raises:
        ArchitectureUnsupported: names the part that is not supported.
    """
    check_parts(vit, name, _PARTS)


ROTARY_VIT = Family(
    title="Vision Transformer with rotary positions",
    timm_modules=("eva",),
    check=check,
    wrap=RotaryViT,
)
