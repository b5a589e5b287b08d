"""Agglomerative Token Clustering: bottom-up, the two closest clusters merge until enough tokens are gone.

The distance of two tokens is 1 − cos of their keys, averaged over the heads; that of two clusters is the mean
distance of their members (average linkage). Every merge waits for the one before it, so that a step takes as
long as dozens of others: this method is for comparison, not for service.

Source: Haurum et al., "Agglomerative Token Clustering", arXiv 2409.11923.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.step import Reduced, StepInputs, carry_out
from prunepool.reduction.tokens import kept_in_order


def step(inputs: StepInputs) -> Reduced:
    """Merge the closest clusters of tokens, one pair at a time."""
    prefix = inputs.prefix
    unit = F.normalize(inputs.mean_keys()[:, prefix:], dim=-1)
    remove, into = agglomerate(1 - unit @ unit.transpose(1, 2), inputs.removed)
    indices = kept_in_order(remove + prefix, into + prefix, inputs.x.shape[1])
    return carry_out(inputs, indices, pruned=False)


def agglomerate(distance: Tensor, merges: int) -> tuple[Tensor, Tensor]:
    """Merge the two closest clusters, so many times.

    Args:
        distance: between tokens, symmetric, float32 [B, T, T].
        merges: r, below T.

    Returns:
        The tokens that are no longer first in their cluster, in the order in which they joined another, and
        the first token of the cluster that each is in at the end, int64 [B, r] each.
    """
    batch, tokens, _ = distance.shape
    rows = torch.arange(batch, device=distance.device)
    distance = distance.clone()
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    members = torch.ones(batch, tokens, device=distance.device)
    cluster = torch.arange(tokens, device=distance.device).repeat(batch, 1)
    gone: list[Tensor] = []
    for _ in range(merges):
        closest = distance.flatten(1).argmin(dim=-1)
        first, second = closest // tokens, closest % tokens
        first, second = torch.minimum(first, second), torch.maximum(first, second)
        own, other = members[rows, first].unsqueeze(-1), members[rows, second].unsqueeze(-1)
        mean = (own * distance[rows, first] + other * distance[rows, second]) / (own + other)
        distance[rows, first] = mean
        distance[rows, :, first] = mean
        distance[rows, second] = torch.inf
        distance[rows, :, second] = torch.inf
        members[rows, first] += members[rows, second]
        cluster = torch.where(cluster == second.unsqueeze(-1), first.unsqueeze(-1), cluster)
        gone.append(second)
    remove = torch.stack(gone, dim=1) if gone else cluster[:, :0]
    return remove, cluster.gather(1, remove)
