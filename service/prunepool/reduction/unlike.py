"""Unlike: the tokens that are most like all others are dropped; what is rare stays.

No class token is asked. Source: the idea of "Sparsity Meets Similarity", which keeps the long tail of
similarities among the tokens that enter a language model, carried over to the blocks of a ViT.
"""

from __future__ import annotations

from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.prune import prune
from prunepool.reduction.step import Reduced, StepInputs, carry_out


def step(inputs: StepInputs) -> Reduced:
    """Drop the tokens whose mean cosine with all others is highest."""
    unit = F.normalize(inputs.x[:, inputs.prefix :].float(), dim=-1)
    # The mean cosine with all is the cosine with the mean, up to a factor that is the same for all.
    likeness = (unit @ unit.mean(dim=1).unsqueeze(-1)).squeeze(-1)
    return carry_out(inputs, prune(-likeness, inputs.removed, inputs.prefix), pruned=True)
