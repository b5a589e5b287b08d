"""MCTF: bipartite matching by similarity, importance and size at once.

Even positions merge into odd ones by the product of ½·(cos + 1), of the attention that both receive to the
power of −1/20 and of both sizes to the power of −1/40: alike, unimportant and small tokens first. A merged
token is the mean weighted by attention times size. The paper's attention "one step ahead", which it computes
with the next block's weights, is this block's here; its matching in both directions is one from even to odd.

Source: Lee et al., "Multi-criteria Token Fusion with One-step-ahead Attention", arXiv 2403.10030.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.pool import merge_best, sides
from prunepool.reduction.step import Reduced, StepInputs, same_for_all
from prunepool.reduction.tokens import merge, sums

#: Exponents of what tokens matter, and of how many patches they stand for.
_IMPORTANCE, _SIZE = 1 / 20, 1 / 40


def step(inputs: StepInputs) -> Reduced:
    """Merge the pairs that are most alike, matter least and stand for the fewest patches."""
    a, b = sides(inputs.prefix)
    unit = F.normalize(inputs.mean_keys(), dim=-1)
    seen = inputs.attention_received()
    size = inputs.sizes()
    alone = seen.pow(-_IMPORTANCE) * size.pow(-_SIZE)
    alike = (unit[:, a] @ unit[:, b].transpose(1, 2) + 1) / 2
    worth = alike * alone[:, a].unsqueeze(-1) * alone[:, b].unsqueeze(1)
    indices = merge_best(worth, inputs.removed, unit.shape[1], inputs.prefix)
    tokens, _ = merge(inputs.x, seen * size, indices)
    variance = torch.zeros(len(seen), device=seen.device)
    return Reduced(tokens, sums(size, indices), indices, same_for_all(inputs, pruned=False), variance)
