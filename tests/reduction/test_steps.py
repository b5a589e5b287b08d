"""Scoring, pruning, pooling and merging, against plain loops over one image at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunepool.reduction.fuse import fuse
from prunepool.reduction.methods import METHODS
from prunepool.reduction.pool import pool
from prunepool.reduction.prune import prune
from prunepool.reduction.scoring import class_attention, score_variance, token_scores
from prunepool.reduction.step import StepInputs
from prunepool.reduction.tokens import TokenReduction, apply_reduction, choose

sizes = st.tuples(st.integers(1, 3), st.integers(2, 40), st.integers(0, 5))


def tensors(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step_inputs(x: Tensor, removed: int, threshold: float = 0.0) -> StepInputs:
    """Random heads for tokens of one prefix token."""
    query, key, value = torch.randn(3, len(x), 2, x.shape[1], 4)
    grid = (2, (x.shape[1] - 1) // 2)
    return StepInputs(x, None, query, key, value, 0.5, removed, threshold, prefix=1, grid=grid)


@given(sizes=sizes, heads=st.integers(1, 3), seed=st.integers(0, 2**31), biased=st.booleans())
def test_the_class_row_is_that_of_the_whole_attention_matrix(
    sizes: tuple[int, int, int], heads: int, seed: int, biased: bool
) -> None:
    batch, patches, _ = sizes
    tokens = patches + 1
    q, k = tensors(seed, 2, batch, heads, tokens, 8)
    size = tensors(seed + 1, batch, tokens).abs() + 1 if biased else None
    logits = q @ k.transpose(-1, -2) * 0.3
    if size is not None:
        logits = logits + size.log()[:, None, None, :]
    expected = logits.softmax(-1)[:, :, 0]
    torch.testing.assert_close(class_attention(q[:, :, 0], k, 0.3, size), expected)


def test_scores_weigh_attention_by_the_norm_of_the_value() -> None:
    attention = torch.tensor([[[0.5, 0.25, 0.25], [0.5, 0.4, 0.1]]])  # 1 image, 2 heads, prefix + 2 patches
    value = torch.tensor([[[[9.0], [3.0], [6.0]], [[9.0], [4.0], [8.0]]]])  # norms 5 and 10 over both heads
    scores = token_scores(attention, value, prefix=1)
    raw = np.array([0.65 * 5, 0.35 * 10])
    np.testing.assert_allclose(scores[0], raw / raw.sum(), rtol=1e-6)


def test_the_variance_is_unbiased() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.7]])
    assert score_variance(scores).item() == pytest.approx(np.var([0.1, 0.2, 0.7], ddof=1))


@given(sizes=sizes, seed=st.integers(0, 2**31), data=st.data())
def test_pruning_keeps_the_best_in_descending_order(
    sizes: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    batch, patches, prefix = sizes
    removed = data.draw(st.integers(0, patches))
    scores = tensors(seed, batch, patches)
    indices = prune(scores, removed, prefix)
    for row in range(batch):
        best = sorted(range(patches), key=lambda j: -float(scores[row, j]))
        expected = list(range(prefix)) + [j + prefix for j in best[: patches - removed]]
        assert indices.keep[row].tolist() == expected
        assert sorted(indices.remove[row].tolist()) == sorted(j + prefix for j in best[patches - removed :])


def pool_by_loops(metric: np.ndarray, removed: int, prefix: int) -> list[set[int]]:
    """Output tokens as sets of input positions, one image, straight from the description."""
    unit = metric / np.linalg.norm(metric, axis=-1, keepdims=True)
    tokens = range(len(metric))
    a = [i for i in tokens if i % 2 == 0 and i >= prefix]
    b = [i for i in tokens if i % 2 == 1 and i >= prefix]
    best = {i: max(b, key=lambda j: float(unit[i] @ unit[j])) for i in a}
    merging = sorted(a, key=lambda i: -float(unit[i] @ unit[best[i]]))[:removed]
    out = [{i} for i in range(prefix)] + [{i} for i in a if i not in merging]
    return out + [{j} | {i for i in merging if best[i] == j} for j in b]


@given(sizes=sizes, seed=st.integers(0, 2**31), data=st.data())
@examples(2)
def test_pooling_merges_the_most_similar_pairs(
    sizes: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    batch, patches, prefix = sizes
    removed = data.draw(st.integers(0, patches // 2))
    metric = tensors(seed, batch, patches + prefix, 6).double()
    keep, remove, target = pool(metric, removed, prefix)
    for row in range(batch):
        groups = [{i} for i in keep[row].tolist()]
        for i, into in zip(remove[row].tolist(), target[row].tolist(), strict=True):
            groups[into].add(i)
        assert groups == pool_by_loops(metric[row].numpy(), removed, prefix)


def test_pooling_more_than_half_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 4, half of 9 patch tokens; got 5"):
        pool(torch.randn(1, 10, 4), 5, 1)


@given(sizes=sizes, seed=st.integers(0, 2**31), data=st.data())
def test_every_token_is_kept_or_removed_exactly_once(
    sizes: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    batch, patches, prefix = sizes
    removed = data.draw(st.integers(0, patches // 2))
    reductions = (
        prune(tensors(seed, batch, patches), removed, prefix),
        pool(tensors(seed, batch, patches + prefix, 4), removed, prefix),
    )
    for keep, remove, _ in reductions:
        for row in range(batch):
            assert sorted(keep[row].tolist() + remove[row].tolist()) == list(range(patches + prefix))


@given(seed=st.integers(0, 2**31), sized=st.booleans())
def test_merging_is_a_size_weighted_mean(seed: int, sized: bool) -> None:
    x = tensors(seed, 2, 5, 3)
    size = torch.randint(1, 9, (2, 5), generator=torch.Generator().manual_seed(seed)).float()
    indices = TokenReduction(
        torch.tensor([[0, 1, 3]] * 2), torch.tensor([[2, 4]] * 2), torch.tensor([[1, 1], [1, 2]])
    )
    pruned = torch.tensor([False, False])
    out, out_size = apply_reduction(x, size if sized else None, indices, pruned)
    weight = size if sized else torch.ones(2, 5)
    for row, groups in enumerate(([[0], [1, 2, 4], [3]], [[0], [1, 2], [3, 4]])):
        for m, members in enumerate(groups):
            w = weight[row, members]
            torch.testing.assert_close(out[row, m], (x[row, members] * w[:, None]).sum(0) / w.sum())
            assert out_size[row, m] == w.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pruning_leaves_the_kept_tokens_untouched(dtype: torch.dtype) -> None:
    x = torch.randn(2, 6, 4).to(dtype)
    size = torch.full((2, 6), 3.0)
    indices = prune(torch.rand(2, 5), 2, 1)
    out, out_size = apply_reduction(x, size, indices, torch.tensor([True, True]))
    assert torch.equal(out, x.gather(1, indices.keep.unsqueeze(-1).expand(-1, -1, 4)))
    assert torch.equal(out_size, torch.full((2, 4), 3.0))


@given(seed=st.integers(0, 2**31))
def test_pooling_loses_no_patch(seed: int) -> None:
    size = torch.randint(1, 9, (2, 11), generator=torch.Generator().manual_seed(seed)).float()
    indices = pool(tensors(seed, 2, 11, 4), 5, 1)
    _, out_size = apply_reduction(tensors(seed, 2, 11, 4), size, indices, torch.tensor([False, False]))
    assert torch.equal(out_size.sum(-1), size.sum(-1))


def test_each_image_goes_its_own_way() -> None:
    prune_map, pool_map = prune(torch.rand(2, 8), 3, 1), pool(torch.randn(2, 9, 4), 3, 1)
    chosen = choose(torch.tensor([True, False]), prune_map, pool_map)
    for mixed, pruned, pooled in zip(chosen, prune_map, pool_map, strict=True):
        assert torch.equal(mixed[0], pruned[0])
        assert torch.equal(mixed[1], pooled[1])


@pytest.mark.parametrize("threshold_side", ["at", "above"])
def test_a_variance_that_reaches_the_threshold_prunes(threshold_side: str) -> None:
    ppt, inputs = METHODS["ppt"].load(), step_inputs(torch.randn(1, 9, 8), removed=2)
    variance = ppt(inputs).variance.item()
    limit = variance if threshold_side == "at" else float(np.nextafter(variance, 1, dtype="f4"))
    pruned = ppt(inputs._replace(threshold=limit)).pruned
    assert pruned.item() is (threshold_side == "at")


@given(sizes=sizes, seed=st.integers(0, 2**31), data=st.data())
def test_fusing_merges_what_loses_least(sizes: tuple[int, int, int], seed: int, data: st.DataObject) -> None:
    batch, patches, prefix = sizes
    removed = data.draw(st.integers(0, patches // 2))
    x = tensors(seed, batch, patches + prefix, 6).double()
    scores = tensors(seed + 1, batch, patches).abs().softmax(-1)
    size = tensors(seed + 2, batch, patches + prefix).abs() + 1
    fused = fuse(x.clone(), size, scores, removed, prefix)
    keep, remove, target = fused.indices
    for row in range(batch):
        tokens, weight = x[row].numpy(), np.pad(scores[row].double().numpy(), (prefix, 0), constant_values=1)
        length = np.linalg.norm(tokens, axis=-1)
        unit = tokens / length[:, None]
        ranked = sorted(range(prefix, patches + prefix), key=lambda i: -weight[i])
        half = ranked[patches - patches // 2 :]

        def loss(i: int, j: int, weight: Any = weight, unit: Any = unit) -> float:
            return float(weight[i] * weight[j] / (weight[i] + weight[j]) * (1 - unit[i] @ unit[j]))

        least = {i: min(loss(i, j) for j in ranked[: ranked.index(i)]) for i in half}
        gone = sorted(half, key=lambda i: least[i])[:removed]
        assert sorted(remove[row].tolist()) == sorted(gone)
        stay = [i for i in range(patches + prefix) if i not in gone]
        assert keep[row].tolist() == stay
        parts = {j: [j] for j in stay}
        for i, into in zip(remove[row].tolist(), target[row].tolist(), strict=True):
            assert stay[into] == min(
                (j for j in ranked[: ranked.index(i)] if j in stay), key=lambda j, i=i: loss(i, j)
            )
            parts[stay[into]].append(i)
        for place, members in enumerate(parts.values()):
            mean = np.average(tokens[members], axis=0, weights=weight[members])
            mean *= np.average(length[members], weights=weight[members]) / np.linalg.norm(mean)
            np.testing.assert_allclose(fused.tokens[row, place], mean, rtol=1e-4, atol=1e-5)
            assert fused.size[row, place].item() == pytest.approx(size[row, members].sum().item())
            if len(members) == 1:
                assert torch.equal(fused.tokens[row, place], x[row, members[0]])


def test_fusing_copes_with_scores_of_nothing_and_opposite_tokens() -> None:
    x = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0]]])
    fused = fuse(x, None, torch.zeros(1, 2), 1, 1)
    assert fused.size.tolist() == [[1, 2]]
    assert torch.isfinite(fused.tokens).all()


def test_fusing_more_than_half_is_refused() -> None:
    with pytest.raises(ValueError, match="removed must be between 0 and 2, half of 5 patch tokens; got 3"):
        fuse(torch.randn(1, 6, 4), None, torch.rand(1, 5), 3, 1)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_known_of_a_method_is_true(method: str) -> None:
    known, step = METHODS[method], METHODS[method].load()
    assert known.name == method
    inputs = step_inputs(torch.randn(4, 9, 8), removed=3)
    results = [step(inputs._replace(threshold=limit)).pruned for limit in (0.0, 1.0)]
    assert known.uses_threshold is not torch.equal(*results)
    nothing = step(inputs._replace(removed=0)).indices.keep
    assert known.keeps_order is torch.equal(nothing, torch.arange(9).expand(4, -1))
    stages = {len(known.default_blocks(depth)) for depth in (4, 12, 24)}
    assert known.default_stages == (stages.pop() if len(stages) == 1 else None)


def test_topk_drops_what_the_class_token_does_not_look_at() -> None:
    query = torch.zeros(1, 1, 5, 1)
    query[0, 0, 0] = 1.0
    key = torch.tensor([0.0, 4.0, 1.0, 3.0, 2.0]).view(1, 1, 5, 1)
    value = torch.tensor([1.0, 1e-3, 9.0, 1e-3, 9.0]).view(1, 1, 5, 1)  # its norm does not count here
    reduced = METHODS["topk"].load()(
        StepInputs(torch.randn(1, 5, 3), None, query, key, value, 1.0, removed=2, threshold=0.0, prefix=1)
    )
    assert reduced.indices.keep.tolist() == [[0, 1, 3]]
