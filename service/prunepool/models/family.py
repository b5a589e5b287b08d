"""What a family of models has to provide; each family is one file of this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from prunepool.models.vit import ReducingViT


@dataclass(frozen=True, slots=True)
class Family:
    """Architectures of timm whose tokens are reduced in the same way.

    Attributes:
        title: as in messages, "plain Vision Transformer".
        timm_modules: modules of `timm.models` that define them.
        check: refuses a network of theirs by raising ArchitectureUnsupported; the second argument is its name.
        wrap: makes the network that reduces tokens, of the family's own subclass if it computes differently.
    """

    title: str
    timm_modules: tuple[str, ...]
    check: Callable[[nn.Module, str], None]
    wrap: Callable[[nn.Module], ReducingViT]
