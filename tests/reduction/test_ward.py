"""Merging in two rounds, against plain loops over one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunepool.reduction import fuse, ward
from prunepool.reduction.step import StepInputs
from prunepool.reduction.ward import counted_after, two_rounds


def tensors(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_loops(unit: np.ndarray, scores: np.ndarray, removed: int) -> list[set[int]]:
    """Clusters of patches, straight from the description."""
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
    rank = {i: place for place, i in enumerate(ranked)}
    movable = ranked[len(ranked) // 4 :]
    weight = scores.copy()

    def loss(i: int, j: int) -> float:
        return float(weight[i] * weight[j] / (weight[i] + weight[j]) * (1 - unit[i] @ unit[j]))

    def best(i: int, among: list[int]) -> int:
        return min((j for j in among if rank[j] < rank[i]), key=lambda j: loss(i, j))

    into: dict[int, int] = {}
    wanted = {i: best(i, ranked) for i in movable if rank[i]}
    half = sorted(wanted, key=lambda i: loss(i, wanted[i]))[: removed // 2]
    into = {i: wanted[i] for i in half if wanted[i] not in half}
    for i, j in into.items():
        weight[j] += scores[i]
    left = [i for i in ranked if i not in into]
    wanted = {i: best(i, left) for i in movable if rank[i] and i not in into}
    second = sorted(wanted, key=lambda i: loss(i, wanted[i]))[: removed - len(into)]
    stay = [i for i in left if i not in second]
    into |= {i: best(i, stay) for i in second}
    clusters = {i: {i} for i in stay}
    for i in into:
        end = i
        while end in into:
            end = into[end]
        clusters[end].add(i)
    return list(clusters.values())


@given(patches=st.integers(2, 40), prefix=st.integers(0, 3), seed=st.integers(0, 2**31), data=st.data())
@examples(2)
def test_two_rounds_merge_what_loses_least(patches: int, prefix: int, seed: int, data: st.DataObject) -> None:
    removed = data.draw(st.integers(0, patches // 2))
    x = tensors(seed, 2, patches + prefix, 6)
    scores = tensors(seed + 1, 2, patches).abs().softmax(-1)
    length = x.norm(dim=-1)
    keep, remove, target = two_rounds(x, length, scores, removed, prefix)
    for row in range(2):
        assert keep[row].tolist() == sorted(set(range(patches + prefix)) - set(remove[row].tolist()))
        found = {i: {i} for i in keep[row].tolist()[prefix:]}
        for i, into in zip(remove[row].tolist(), target[row].tolist(), strict=True):
            found[int(keep[row, into])].add(i)
        unit = (x / length[..., None])[row, prefix:].double().numpy()
        expected = by_loops(unit, scores[row].double().numpy(), removed)
        assert sorted(map(sorted, found.values())) == sorted(
            sorted(i + prefix for i in cluster) for cluster in expected
        )


def lost(x: Tensor, scores: Tensor, clusters: Tensor) -> float:
    """The scatter of unit vectors around the means of their clusters, weighted by score."""
    unit = x / x.norm(dim=-1, keepdim=True)
    total = 0.0
    for label in clusters.unique():
        members = clusters == label
        weight = scores[members]
        mean = (unit[members] * weight[:, None]).sum(0) / weight.sum()
        total += float((weight * (1 - (unit[members] @ mean))).sum())
    return total


def test_less_is_lost_than_by_one_matching() -> None:
    """On tokens in groups, as patches of one thing are; the mean of many images."""
    ours = theirs = 0.0
    for seed in range(20):
        groups = tensors(seed, 12, 16)
        which = torch.randint(0, 12, (65,), generator=torch.Generator().manual_seed(seed))
        x = (groups[which] + 0.3 * tensors(seed + 1, 65, 16))[None]
        scores = tensors(seed + 2, 1, 64).mul(0.7).exp()
        scores = scores / scores.sum()
        length = x.norm(dim=-1)
        for merge in (two_rounds, fuse.least_loss):
            keep, remove, target = merge(x, length, scores, 24, 1)
            clusters = torch.arange(65)
            clusters[remove[0]] = keep[0, target[0]]
            amount = lost(x[0, 1:], scores[0], clusters[1:])
            ours, theirs = (ours + amount, theirs) if merge is two_rounds else (ours, theirs + amount)
    assert ours < 0.95 * theirs


def step_inputs(depth: float, counted: Tensor | None = None) -> StepInputs:
    query, key, value = tensors(1, 3, 2, 2, 17, 4)
    size = torch.randint(1, 4, (2, 17), generator=torch.Generator().manual_seed(2)).float()
    return StepInputs(
        tensors(0, 2, 17, 8), size, query, key, value, 0.5, 6, 0.0, 1, depth=depth, counted=counted
    )


def test_each_patch_counts_by_its_cosine_with_the_merged_token() -> None:
    inputs = step_inputs(depth=0.5)
    reduced = ward.step(inputs)
    assert reduced.counted is not None
    keep, remove, target = reduced.indices
    sizes = inputs.sizes()
    for row in range(2):
        expected = sizes[row, keep[row]].clone()
        for i, into in zip(remove[row].tolist(), target[row].tolist(), strict=True):
            alike = torch.cosine_similarity(inputs.x[row, i], reduced.tokens[row, into], dim=0)
            expected[into] += sizes[row, i] * alike.clamp_min(0)
        torch.testing.assert_close(reduced.counted[row], expected)


@pytest.mark.parametrize(("depth", "power"), [(0.0, 0.0), (0.125, 0.5), (0.25, 1.0), (0.9, 1.0)])
def test_counts_grow_by_a_smaller_power_early_in_the_network(depth: float, power: float) -> None:
    inputs = step_inputs(depth, counted=step_inputs(depth).sizes() * 0.5)
    full, now = ward.step(inputs._replace(depth=0.5)), ward.step(inputs)
    assert full.counted is not None
    assert now.counted is not None
    assert inputs.counted is not None
    own = inputs.counted.gather(1, now.indices.keep)
    torch.testing.assert_close(now.counted, own * (full.counted / own).pow(power))


def test_opposite_tokens_count_for_nothing() -> None:
    x = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0]]])
    indices = two_rounds(x, x.norm(dim=-1), torch.tensor([[0.9, 0.1]]), 1, 1)
    counted = counted_after(x, x.norm(dim=-1), x[:, :2], torch.ones(1, 3), indices, power=1.0)
    assert counted.tolist() == [[1.0, 1.0]]
