"""Positions that a network gives its tokens inside attention, and that travel with them when others are removed.

A token that is kept keeps its place, and so does one that others merge into: rotary angles and relative distances
are those of the patch that receives. `place` is int64 [B, N], the place of each token at the input, prefix
included; None while no token has been removed, so that a dense pass computes what timm computes, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary embeddings of the patches: queries and keys are turned by the angles of their place.

    Source: Su et al., "RoFormer", arXiv 2104.09864; in two dimensions as in EVA-02, arXiv 2303.11331.

    Attributes:
        angles: sines and cosines, [T, 2D], or [H, T, 2D] where each head has its own.
        prefix: P, tokens in front, which have no position.
        half: whether a rotation pairs the two halves of the channels, not neighbours.
    """

    angles: Tensor
    prefix: int
    half: bool

    def turned(self, heads: Tensor, place: Tensor | None) -> Tensor:
        """Queries or keys [B, H, N, D] after the rotation."""
        front, patches = heads[:, :, : self.prefix], heads[:, :, self.prefix :]
        rotated = apply_rot_embed_cat(patches, self._angles(place), half=self.half)
        return torch.cat([front, rotated], dim=2)

    def _angles(self, place: Tensor | None) -> Tensor:
        if place is None:
            return self.angles
        patch = place[:, self.prefix :] - self.prefix
        if self.angles.ndim == 2:
            return self.angles[patch].unsqueeze(1)
        return self.angles[:, patch].transpose(0, 1)


@dataclass(frozen=True, slots=True)
class Relative:
    """A learned bias on attention for each distance between two patches, as in BEiT.

    Source: Bao et al., "BEiT", arXiv 2106.08254.

    Attributes:
        index: int64 [N, N], the row of the tables for each pair of places.
        tables: of biases, [distances, H] each; they add up.
    """

    index: Tensor
    tables: Sequence[Tensor]

    def bias(self, place: Tensor | None) -> Tensor:
        """What is added to the attention logits, [B, H, N, N], or [1, H, N, N] for all images."""
        index = self.index.unsqueeze(0)
        if place is not None:
            index = self.index[place.unsqueeze(2), place.unsqueeze(1)]
        first, *others = (table[index].permute(0, 3, 1, 2).contiguous() for table in self.tables)
        return sum(others, start=first)


#: What a block adds to its tokens' attention; None: their positions were added to the tokens at the input.
Positions = Rotary | Relative | None
