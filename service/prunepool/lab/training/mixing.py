"""Mixup and CutMix: mix the images of a batch with each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Mixed(NamedTuple):
    """A batch in which each image is mixed with another.

    Attributes:
        images: [B, 3, H, W].
        partner: int64 [B], the image that each is mixed with.
        share: float32 [B], share of the image itself.
    """

    images: Tensor
    partner: Tensor
    share: Tensor


def mix(images: Tensor, rng: np.random.Generator) -> Mixed:
    """Apply mixup (Zhang et al., arXiv 1710.09412) or CutMix (Yun et al., arXiv 1905.04899), each half of the
    time.

    Args:
        images: [B, 3, H, W]; each is mixed with the next, and the last with the first.
        rng: source of randomness.
    """
    batch, _, height, width = images.shape
    partner = torch.roll(torch.arange(batch, device=images.device), -1)
    other = images[partner]
    if rng.random() < 0.5:
        share = torch.from_numpy(rng.uniform(0.3, 1.0, batch).astype(np.float32)).to(images.device)
        weight = share.view(-1, 1, 1, 1).to(images.dtype)
        return Mixed(images * weight + other * (1 - weight), partner, share)
    mixed = images.clone()
    shares = np.empty(batch, np.float32)
    for i in range(batch):
        side = np.sqrt(rng.uniform(0.0, 0.7))
        h, w = round(height * side), round(width * side)
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        mixed[i, :, top : top + h, left : left + w] = other[i, :, top : top + h, left : left + w]
        shares[i] = 1 - h * w / (height * width)
    return Mixed(mixed, partner, torch.from_numpy(shares).to(images.device))
