"""A loaded model: its network on a device, and its dial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from itertools import groupby

import torch
from torch import Tensor

from prunepool.errors import InvalidParameter
from prunepool.models.dial import ModelDial
from prunepool.models.vit import Forward, Group, ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan
from prunepool.store import Manifest


class LoadedModel:
    """A Vision Transformer that runs at any reduction ratio; one pass may mix several.

    Args:
        vit: the network in evaluation mode, on its device and in its dtype.
        manifest: of the model.
    """

    def __init__(self, vit: ReducingViT, manifest: Manifest) -> None:
        self.vit = vit
        self.manifest = manifest
        self.geometry = vit.geometry
        self.dial = ModelDial(manifest, vit.geometry)
        parameter = next(vit.parameters())
        self.device = parameter.device
        self.dtype = parameter.dtype
        # (x/255 − mean) / std as one multiplication and one addition per channel.
        self._scale = (1 / (255 * torch.tensor(manifest.std))).view(3, 1, 1).to(self.device)
        self._shift = (
            (-torch.tensor(manifest.mean) / torch.tensor(manifest.std)).view(3, 1, 1).to(self.device)
        )

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self.manifest.name

    @property
    def max_ratio(self) -> float:
        """The largest reduction ratio."""
        return self.dial.max_ratio

    def plan(self, ratio: float) -> ReductionPlan:
        """The plan for a reduction ratio.

        Raises:
            InvalidParameter: the ratio is not a number from 0 to :attr:`max_ratio`; names both.
        """
        return self.dial.plan(ratio)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 [B, H, W, 3] to the network's input, [B, 3, H, W] in its dtype."""
        return (pixels.permute(0, 3, 1, 2) * self._scale + self._shift).to(self.dtype)

    def normalise_into(self, target: Tensor, pixels: Tensor) -> None:
        """The same in one kernel without intermediates, into `target`, [B, 3, H, W] in the network's dtype."""
        torch.addcmul(self._shift, pixels.permute(0, 3, 1, 2), self._scale, out=target)

    @torch.inference_mode()
    def __call__(self, images: Tensor, plan: ReductionPlan | Sequence[ReductionPlan] = DENSE) -> Forward:
        """Logits of a batch.

        Args:
            images: normalised, [B, 3, H, W], any float dtype.
            plan: one for all images, or one for each; mixed plans run in one pass.

        Returns:
            Logits, float32 [B, classes], in the order of the images; and the reductions, sorted so that images of
            one plan are neighbours.

        Raises:
            InvalidParameter: the batch has another shape, or plans and images differ in number.
        """
        size = self.manifest.input_size
        if images.ndim != 4 or images.shape[1:] != (3, size, size) or not len(images):
            raise InvalidParameter("images", list(images.shape), f"of shape [B, 3, {size}, {size}], B ≥ 1")
        images = images.to(self.device, self.dtype)
        if isinstance(plan, ReductionPlan):
            return self._forward(images, [(plan, len(images))])
        if len(plan) != len(images):
            raise InvalidParameter("plan", len(plan), f"one plan, or one for each of {len(images)} images")
        order = sorted(range(len(plan)), key=lambda i: astuple(plan[i]))
        if order == list(range(len(plan))):
            return self._forward(images, _groups(plan))
        index = torch.tensor(order, device=self.device)
        logits, stages = self._forward(images[index], _groups([plan[i] for i in order]))
        return Forward(torch.empty_like(logits).index_copy_(0, index, logits), stages)

    def _forward(self, images: Tensor, groups: Sequence[Group]) -> Forward:
        out: Forward = self.vit(images, groups)
        return out


def _groups(plans: Sequence[ReductionPlan]) -> list[Group]:
    """Groups of equal neighbouring plans, with their lengths."""
    return [(plan, len(list(run))) for plan, run in groupby(plans)]
