"""A head that reads the class token and the mean of the patches side by side, as linear probes of DINOv2 do.

timm has none; transformers' `Dinov2ForImageClassification` is one.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from prunepool.models.network_geometry import network_geometry
from prunepool.models.vit import ReducingViT

POOL = "tokenavg"


class TokenAndMeanViT(VisionTransformer):
    """timm's network with that head: its features have twice the channels of a token."""

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        """The features of tokens [B, N, C], [B, 2·C]."""
        return torch.cat([x[:, 0], x[:, self.num_prefix_tokens :].mean(dim=1)], dim=1)


def read_token_and_mean(network: ReducingViT, outputs: int) -> None:
    """Give a network with a class token this head, with random weights, on the default device.

    Args:
        network: whose head reads the class token.
        outputs: of the head; 0 for none.
    """
    vit: Any = network.vit
    vit.__class__ = TokenAndMeanViT
    vit.global_pool = POOL
    if outputs:
        vit.head = nn.Linear(2 * vit.embed_dim, outputs)
    network.geometry = network_geometry(vit)
