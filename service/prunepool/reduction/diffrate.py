"""DiffRate: in one block the least attended tokens are dropped, and the next ones merge.

Half of the tokens that leave are those that the class token attends to least; they are dropped. The other half
are the least attended of the rest, each merged into its most similar kept token by cosine. The paper learns how
many are dropped, how many merge, and at which block; :data:`TOKENS` are the counts that it published.

Source: Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", arXiv
2305.17997.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.methods import DROPPED
from prunepool.reduction.rows import gather_rows
from prunepool.reduction.step import Reduced, StepInputs, same_for_all
from prunepool.reduction.tokens import kept_in_order, merge, sums

#: Tokens before the first and after each block of its DeiT-S, by GMACs.
TOKENS = {
    2.9: (197, 197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3),
    2.3: (197, 197, 180, 156, 127, 109, 98, 80, 66, 52, 37, 31, 3),
}


def step(inputs: StepInputs) -> Reduced:
    """Drop one half of the tokens that leave, and merge the other."""
    prefix, removed = inputs.prefix, inputs.removed
    seen = inputs.class_attention().mean(dim=1)[:, prefix:]
    order = seen.argsort(dim=-1, stable=True) + prefix
    dropped, merged, kept = order[:, : removed // 2], order[:, removed // 2 : removed], order[:, removed:]
    unit = F.normalize(inputs.x.float(), dim=-1)
    best = (gather_rows(unit, merged) @ gather_rows(unit, kept).transpose(1, 2)).argmax(dim=-1)
    into = torch.cat((kept[:, :1].expand_as(dropped), kept.gather(1, best)), dim=1)
    indices = kept_in_order(order[:, :removed], into, inputs.x.shape[1])
    # What is dropped has no weight in any mean, wherever it is sent.
    size = inputs.sizes().scatter(1, dropped, 0.0)
    tokens, _ = merge(inputs.x, size, indices)
    target = torch.cat((torch.full_like(dropped, DROPPED), indices.target[:, removed // 2 :]), dim=1)
    return Reduced(
        tokens,
        sums(size, indices),
        indices._replace(target=target),
        same_for_all(inputs, pruned=False),
        torch.zeros(len(seen), device=seen.device),
        dropped=removed // 2,
    )
