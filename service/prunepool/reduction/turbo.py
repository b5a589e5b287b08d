"""Turbo: bipartite matching that leaves alone what the class token attends to.

Even positions merge into odd ones as in ToMe, but by cos(a, b) − 30·α·A[class, a]: a token that is like another
one and carries much information stays.

Source: Ju et al., "Turbo: Informativity-Driven Acceleration Plug-In for Vision-Language Models", arXiv
2312.07408.
"""

from __future__ import annotations

from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.pool import merge_best, sides
from prunepool.reduction.step import Reduced, StepInputs, carry_out

#: α times 30, on the class token's attention averaged over the heads.
_INFORMATION = 30.0


def step(inputs: StepInputs) -> Reduced:
    """Merge the pairs with the most similar keys, less what the class token sees in the one that leaves."""
    prefix = inputs.prefix
    a, b = sides(prefix)
    unit = F.normalize(inputs.mean_keys(), dim=-1)
    seen = inputs.class_attention().mean(dim=1)
    worth = unit[:, a] @ unit[:, b].transpose(1, 2) - _INFORMATION * seen[:, a].unsqueeze(-1)
    return carry_out(inputs, merge_best(worth, inputs.removed, unit.shape[1], prefix), pruned=False)
