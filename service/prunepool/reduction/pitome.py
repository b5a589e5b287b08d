"""PiToMe: tokens of high energy, which many others resemble, merge among themselves.

The energy of a token is the mean of ELU(cos(kᵢ, kⱼ) − m) over all others, with a margin m = ¾·(1 − l/L) at
block l of L. The 2r tokens of highest energy are divided in turns into A and B, and each of A merges into the
most similar one of B. Attention has no bias for sizes.

Source: Tran et al., "Accelerating Transformers with Spectrum-Preserving Token Merging", arXiv 2405.16148.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.rows import gather_rows
from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import kept_in_order

#: The margin before the first block.
_MARGIN = 0.75


def step(inputs: StepInputs) -> Reduced:
    """Merge the half of the 2r tokens of highest energy into the other half."""
    prefix, removed = inputs.prefix, inputs.removed
    unit = F.normalize(inputs.mean_keys()[:, prefix:], dim=-1)
    margin = _MARGIN * (1 - inputs.depth)
    # A token's likeness to itself is the same for all, and changes no order.
    energy = F.elu(unit @ unit.transpose(1, 2) - margin).mean(dim=-1)
    redundant = energy.argsort(dim=-1, descending=True, stable=True)[:, : 2 * removed]
    a, b = redundant[:, 0::2], redundant[:, 1::2]
    best = (gather_rows(unit, a) @ gather_rows(unit, b).transpose(1, 2)).argmax(dim=-1) if removed else a
    indices = kept_in_order(a + prefix, b.gather(1, best) + prefix, prefix + unit.shape[1])
    reduced = carry_out(inputs, indices, pruned=False)
    return reduced._replace(counted=torch.ones_like(reduced.size))
