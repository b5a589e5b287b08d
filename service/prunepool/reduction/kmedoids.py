"""Token Pooling: weighted K-medoids.

The K tokens that receive most attention are the first medoids. In each of five rounds every token is assigned
to the nearest medoid, and the member with the least sum of weighted distances to its cluster becomes its
medoid. Each cluster becomes its mean. Weights are the attention received.

Source: Marin et al., "Token Pooling in Vision Transformers", arXiv 2110.03860.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunepool.reduction.rows import gather_rows
from prunepool.reduction.step import Reduced, StepInputs, same_for_all
from prunepool.reduction.tokens import kept_in_order, merge, sums

_ROUNDS = 5


def step(inputs: StepInputs) -> Reduced:
    """Merge each cluster of tokens into its medoid's place."""
    prefix = inputs.prefix
    weight = inputs.attention_received()
    x = inputs.x[:, prefix:].float()
    medoids, cluster = k_medoids(x, weight[:, prefix:], x.shape[1] - inputs.removed)
    left = torch.ones_like(cluster, dtype=torch.bool).scatter(1, medoids, False)
    # The tokens that are no medoid, in their order.
    remove = left.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, : inputs.removed]
    into = medoids.gather(1, cluster.gather(1, remove))
    indices = kept_in_order(remove + prefix, into + prefix, inputs.x.shape[1])
    tokens, _ = merge(inputs.x, weight, indices)
    variance = torch.zeros(len(weight), device=weight.device)
    return Reduced(
        tokens, sums(inputs.sizes(), indices), indices, same_for_all(inputs, pruned=False), variance
    )


def k_medoids(x: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cluster tokens around some of themselves.

    Args:
        x: tokens, float32 [B, T, C].
        weight: of each, float32 [B, T].
        count: K, clusters.

    Returns:
        The medoids, int64 [B, K], and for each token the index of its medoid among them, int64 [B, T].
    """
    distance = torch.cdist(x, x)
    medoids = weight.argsort(dim=-1, descending=True, stable=True)[:, :count]
    cluster = _nearest(distance, medoids)
    for _ in range(_ROUNDS):
        inside = torch.nn.functional.one_hot(cluster, count).to(x.dtype)
        # What each token would cost as the medoid of each cluster; one that is not in it cannot be.
        cost = distance @ (inside * weight.unsqueeze(-1))
        medoids = cost.masked_fill(inside == 0, torch.inf).argmin(dim=1)
        cluster = _nearest(distance, medoids)
    return medoids, cluster


def _nearest(distance: Tensor, medoids: Tensor) -> Tensor:
    """The nearest medoid of each token, int64 [B, T]; a medoid is its own, also where another one equals it."""
    cluster = gather_rows(distance, medoids).argmin(dim=1)
    own = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return cluster.scatter(1, medoids, own)
