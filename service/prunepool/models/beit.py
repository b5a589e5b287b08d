"""timm's `Beit`: BEiT and BEiT v2, whose attention has a learned bias for each distance between two patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models import beit
from torch import Tensor, nn

from prunepool.models.family import Family
from prunepool.models.parts import Parts, check_parts
from prunepool.models.positions import Positions, Relative
from prunepool.models.vit import ReducingViT

_PARTS = Parts(networks=(beit.Beit,), blocks=(beit.Block,), attentions=(beit.Attention,))


class RelativeViT(ReducingViT):
    """A `Beit` on fewer and fewer tokens, whose relative positions travel with them."""

    def embed(self, images: Tensor) -> Tensor:
        """The tokens that enter the first block, [B, N, C], of normalised images [B, 3, H, W]."""
        vit = self.vit
        x = vit.patch_embed(images.to(self.dtype))
        x = torch.cat((vit.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return x if vit.pos_embed is None else x + vit.pos_embed

    def positions(self) -> Sequence[Positions]:
        """The tables of each block: its own, the one that all share, or both."""
        shared = self.vit.rel_pos_bias
        found: list[Positions] = []
        for block in self.vit.blocks:
            own = block.attn if block.attn.relative_position_bias_table is not None else None
            sources = [source for source in (own, shared) if source is not None]
            tables = [source.relative_position_bias_table for source in sources]
            found.append(Relative(sources[0].relative_position_index, tables) if sources else None)
        return found


def check(vit: nn.Module, name: str) -> None:
    """Refuse a network that :class:`RelativeViT` would compute differently from timm.

    Args:
        vit: a timm model.
        name: its name, for the message.

    Raises:
        ArchitectureUnsupported: names the part that is not supported.
    """
    check_parts(vit, name, _PARTS)


BEIT = Family(
    title="BEiT",
    timm_modules=("beit",),
    check=check,
    wrap=RelativeViT,
)
