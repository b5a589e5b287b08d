"""timm's transformer blocks as their parts: what comes before attention, what after it, and the MLP.

A block adds to its tokens what attention and then the MLP give. It normalises before both (most), or what they give
(post-norm: EVA-02 enormous), and scales it by channel (`LayerScale`, or the parameters gamma_1 and gamma_2).
"""

from __future__ import annotations

from typing import Any

from timm.models.eva import EvaBlockPostNorm
from torch import Tensor


def attention_input(block: Any, x: Tensor) -> Tensor:
    """What enters the attention of tokens [rows, C]."""
    if isinstance(block, EvaBlockPostNorm):
        return x
    y: Tensor = block.norm1(x)
    return y


def attention_branch(block: Any, mixed: Tensor) -> Tensor:
    """What is added to the tokens, of the output of attention [rows, C]."""
    if isinstance(block, EvaBlockPostNorm):
        y: Tensor = block.norm1(mixed)
        return y
    return _scaled(block, "1", mixed)


def mlp_branch(block: Any, x: Tensor) -> Tensor:
    """What the MLP adds to tokens [rows, C]."""
    if isinstance(block, EvaBlockPostNorm):
        y: Tensor = block.norm2(block.mlp(x))
        return y
    return _scaled(block, "2", block.mlp(block.norm2(x)))


def _scaled(block: Any, which: str, y: Tensor) -> Tensor:
    scale = getattr(block, f"ls{which}", None)
    if scale is not None:
        scaled: Tensor = scale(y)
        return scaled
    gamma: Tensor | None = getattr(block, f"gamma_{which}")
    return y if gamma is None else gamma * y
