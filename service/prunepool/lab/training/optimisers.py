"""Optimisers and the learning rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from prunepool.lab.training.muon import Muon
from prunepool.lab.training.recipe import Recipe


def make_optimisers(vit: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """The optimisers of a run; together they have every parameter exactly once.

    Args:
        vit: a timm Vision Transformer.
        recipe: of the run.
    """
    hidden: list[Tensor] = []
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in vit.named_parameters():
        if parameter.ndim < 2 or name in ("cls_token", "pos_embed", "dist_token", "reg_token"):
            rest.append(parameter)
        elif recipe.optimiser == "muon" and name.startswith("blocks.") and parameter.ndim == 2:
            hidden.append(parameter)
        else:
            matrices.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": rest},
    ]
    adamw = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0)
    if not hidden:
        return [adamw]
    return [Muon(hidden, lr=recipe.lr, weight_decay=recipe.weight_decay), adamw]


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a half cosine down to zero at the last step."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    way = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * way))
