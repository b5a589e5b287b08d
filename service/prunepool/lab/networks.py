"""Networks to time: the geometry is what counts, not the weights."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.support import check


def random_network(architecture: str) -> tuple[nn.Module, int]:
    """A timm ViT with random weights that all matter, and the pixels a side it takes.

    Raises:
        ArchitectureUnsupported: timm has no such model, or its tokens cannot be reduced.
    """
    try:
        vit: Any = timm.create_model(architecture, pretrained=False)
    except RuntimeError as error:
        raise ArchitectureUnsupported(f"timm {timm.__version__}: {error}") from error
    check(vit, architecture)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vit.parameters():
            # Zeros and ones, timm's start for some, would make every token alike.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return vit.eval().requires_grad_(False), vit.patch_embed.img_size[0]
