"""A small network of each architecture: its own parts, four blocks of them, at ViT-Ti's width, on sixteen patches.

What a network computes depends on its parts. Those of two sizes of a model are the same, so that the many
architectures of timm come down to a few dozen kinds.
"""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
from torch import nn

_DEPTH, _WIDTH, _HEADS = 4, 192, 3
#: Patches a side.
_SIDE = 4
#: The size of a patch, or what the convolutions before it shrink an image by.
_PATCH = re.compile(r"(?:patch|r\d*_s|resnet\d+d_s)(\d+)")
_LARGEST_PATCH = 32

#: Values that tell two kinds of a module apart, where its printed form does not.
_SIMPLE = (bool, int, float, str, tuple, type(None))


def small_network(architecture: str, **options: Any) -> nn.Module:
    """A small network of an architecture, in evaluation mode; on the meta device if that is the default one.

    Args:
        architecture: timm's name, without a tag.
        **options: for `timm.create_model`, instead of the small ones.
    """
    found = _PATCH.search(architecture)
    patch = int(found[1]) if found else _LARGEST_PATCH
    small: dict[str, Any] = {
        "depth": _DEPTH,
        "embed_dim": _WIDTH,
        "num_heads": _HEADS,
        "img_size": patch * _SIDE,
    }
    if "sapiens2" in architecture:  # full attention, then groups of heads, as in the large one
        small["num_kv_heads"] = (_HEADS, 1, 1, _HEADS)
    try:
        return timm.create_model(architecture, pretrained=False, **(small | options)).eval()
    except AssertionError:  # convolutions whose channels are the tokens' width
        return timm.create_model(architecture, pretrained=False, **({"depth": _DEPTH} | options)).eval()


def randomise(vit: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network random weights that all matter; timm's are near zero in layer scales and heads."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in vit.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in key and key.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif re.search(r"\.ls\d\.|\.gamma_\d", key):
                parameter.copy_(0.3 + 0.05 * noise)
            else:
                parameter.copy_((0.3 if "position" in key or "freqs" in key else 0.05) * noise)
    return vit.requires_grad_(False)


def kind_of(vit: nn.Module) -> str:
    """What a network is made of: two of one kind differ in their weights alone."""
    parts = ("", "blocks.0.attn", "rope", "patch_embed")
    modules = [(name, module) for name, module in vit.named_modules() if name in parts]
    return "\n".join((*(f"{name}: {_values_of(module)}" for name, module in modules), repr(vit)))


def _values_of(module: nn.Module) -> dict[str, object]:
    return {
        key: value
        for key, value in sorted(vars(module).items())
        if isinstance(value, _SIMPLE) and key not in ("num_classes", "training")
    }
