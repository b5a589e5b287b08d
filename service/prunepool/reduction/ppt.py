"""PPT: each image is pruned or pooled, whichever its scores call for.

Where the scores differ much (their variance reaches the threshold) the lowest-scored tokens are dropped;
where they are alike, the most similar pairs merge.

Source: Wu et al., "PPT: Token Pruning and Pooling for Efficient Vision Transformers", arXiv 2310.01812.
"""

from __future__ import annotations

from prunepool.reduction.pool import pool
from prunepool.reduction.prune import prune
from prunepool.reduction.scoring import score_variance
from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import choose


def step(inputs: StepInputs) -> Reduced:
    """Prune the images whose score variance reaches the threshold, and pool the others."""
    scores = inputs.scores()
    variance = score_variance(scores)
    pruned = variance >= inputs.threshold
    pooling = pool(inputs.mean_keys(), inputs.removed, inputs.prefix)
    indices = choose(pruned, prune(scores, inputs.removed, inputs.prefix), pooling)
    return carry_out(inputs, indices, pruned, variance)
