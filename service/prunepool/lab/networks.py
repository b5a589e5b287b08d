"""Networks for timing: their geometry matters, not their weights."""

from __future__ import annotations

import torch
from torch import nn

from prunepool.models.families import make_network


def random_network(architecture: str) -> tuple[nn.Module, int]:
    """A timm ViT whose random weights all have an effect, and its input resolution.

    Raises:
        ArchitectureUnsupported: timm has no such model, or its tokens cannot be reduced.
    """
    vit = make_network(architecture).vit
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vit.parameters():
            # timm initialises some parameters with zeros or ones, which would make all tokens equal.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return vit.requires_grad_(False), vit.patch_embed.img_size[0]
