"""What holds for every method, and what each method of the field does, against plain loops over one image."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.reduction.atc import agglomerate
from prunepool.reduction.diffrate import TOKENS
from prunepool.reduction.kmedoids import k_medoids
from prunepool.reduction.local import merge_windows
from prunepool.reduction.methods import DROPPED, METHODS
from prunepool.reduction.scoring import attention_received
from prunepool.reduction.step import Reduced, StepInputs

#: Rows and columns of patches.
grids = st.tuples(st.integers(2, 6), st.integers(2, 6))
#: Those that drop tokens, each in whole images.
DROPS = {"prune", "topk", "unlike"}


def inputs_of(
    seed: int, grid: tuple[int, int], removed: int, *, batch: int = 2, prefix: int = 1, sized: bool = False
) -> StepInputs:
    """Random tokens and heads; with sizes as after an earlier reduction, if `sized`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = grid[0] * grid[1] + prefix
    x = torch.randn(batch, tokens, 12, generator=generator)
    query, key, value = torch.randn(3, batch, 3, tokens, 4, generator=generator)
    size = torch.randint(1, 5, (batch, tokens), generator=generator).float() if sized else None
    return StepInputs(x, size, query, key, value, 0.5, removed, 7e-5, prefix, depth=0.25, grid=grid)


def image(inputs: StepInputs, i: int) -> StepInputs:
    """One image of a batch, alone."""
    size = None if inputs.size is None else inputs.size[i : i + 1]
    x, query, key, value = (part[i : i + 1] for part in (inputs.x, inputs.query, inputs.key, inputs.value))
    return inputs._replace(x=x, size=size, query=query, key=key, value=value)


def groups_of(reduced: Reduced, row: int) -> list[set[int]]:
    """Output tokens of an image as sets of input positions; what was dropped is in none."""
    keep, remove, target = (part[row].tolist() for part in reduced.indices)
    groups = [{i} for i in keep]
    for i, into in zip(remove, target, strict=True):
        if into != DROPPED and not reduced.pruned[row]:
            groups[into].add(i)
    return groups


@pytest.mark.parametrize("method", METHODS)
@given(grid=grids, seed=st.integers(0, 2**31), prefix=st.integers(1, 3), sized=st.booleans(), data=st.data())
@examples(0.3)
def test_every_token_is_kept_or_removed_once_and_no_patch_is_lost(
    method: str, grid: tuple[int, int], seed: int, prefix: int, sized: bool, data: st.DataObject
) -> None:
    removed = data.draw(st.integers(0, _most(method, grid, sized)))
    inputs = inputs_of(seed, grid, removed, prefix=prefix, sized=sized)
    reduced = METHODS[method].load()(inputs)
    tokens = inputs.x.shape[1]
    assert reduced.tokens.shape == (2, tokens - removed, 12)
    assert reduced.size.shape == (2, tokens - removed)
    assert torch.isfinite(reduced.tokens).all()
    for row in range(2):
        keep, remove, target = (part[row].tolist() for part in reduced.indices)
        assert sorted(keep + remove) == list(range(tokens))
        assert keep[:prefix] == list(range(prefix))
        groups = groups_of(reduced, row)
        dropped = removed if reduced.pruned[row] else reduced.dropped
        assert method == "ppt" or bool(reduced.pruned[row]) is (method in DROPS)
        assert sum(map(len, groups)) == tokens - dropped
        sizes = inputs.sizes()[row]
        for group, size in zip(groups, reduced.size[row].tolist(), strict=True):
            assert size == pytest.approx(float(sizes[sorted(group)].sum()), rel=1e-5)
        if not reduced.pruned[row]:
            assert all(prefix <= into < len(keep) for into in target if into != DROPPED)
        alone = [place for place, group in enumerate(groups) if len(group) == 1]
        assert torch.equal(reduced.tokens[row, alone], inputs.x[row, [keep[place] for place in alone]])


def _most(method: str, grid: tuple[int, int], sized: bool) -> int:
    half = grid[0] * grid[1] // 2
    return min(half, 3 * (grid[0] // 2) * (grid[1] // 2)) if method == "local" and not sized else half


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_no_method_cares_who_shares_the_batch(method: str, sized: bool) -> None:
    step = METHODS[method].load()
    inputs = inputs_of(5, (8, 8), 23, batch=5, sized=sized)
    together = step(inputs)
    for i in range(5):
        alone = step(image(inputs, i))
        assert all(torch.equal(a[i], b[0]) for a, b in zip(together.indices, alone.indices, strict=True))
        torch.testing.assert_close(together.tokens[i], alone.tokens[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(together.size[i], alone.size[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_stays_half_and_decides_in_float32(method: str, dtype: torch.dtype) -> None:
    inputs = inputs_of(7, (6, 6), 11, sized=True)
    x, query, key, value = (part.to(dtype) for part in (inputs.x, inputs.query, inputs.key, inputs.value))
    half = inputs._replace(x=x, query=query, key=key, value=value)
    wide = half._replace(x=x.float(), query=query.float(), key=key.float(), value=value.float())
    step = METHODS[method].load()
    rounded, exact = step(half), step(wide)
    assert rounded.tokens.dtype == dtype
    assert rounded.size.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(rounded.indices, exact.indices, strict=True))
    torch.testing.assert_close(rounded.tokens.float(), exact.tokens, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("method", [name for name, known in METHODS.items() if known.served])
def test_what_is_served_reads_no_value_on_the_host(method: str) -> None:
    """On the meta device there are shapes and no values: whatever asks for one fails."""
    inputs = inputs_of(3, (6, 6), 11, sized=True)
    x, size, query, key, value = (
        part.to("meta") for part in (inputs.x, inputs.sizes(), inputs.query, inputs.key, inputs.value)
    )
    reduced = METHODS[method].load()(inputs._replace(x=x, size=size, query=query, key=key, value=value))
    assert reduced.tokens.shape == (2, 26, 12)


@given(seed=st.integers(0, 2**31), tokens=st.integers(2, 14), data=st.data())
@examples(1)
def test_clusters_are_those_of_average_linkage(seed: int, tokens: int, data: st.DataObject) -> None:
    merges = data.draw(st.integers(0, tokens - 1))
    points = torch.randn(2, tokens, 4, generator=torch.Generator().manual_seed(seed)).double()
    distance = torch.cdist(points, points)
    remove, into = agglomerate(distance, merges)
    for row in range(2):
        clusters = [{i} for i in range(tokens)]
        apart = distance[row].numpy()

        def mean(pair: tuple[set[int], set[int]], apart: np.ndarray = apart) -> float:
            return float(np.mean([apart[i, j] for i in pair[0] for j in pair[1]]))

        for _ in range(merges):
            one, other = min(combinations(clusters, 2), key=mean)
            clusters = [c for c in clusters if c not in (one, other)] + [one | other]
        found = {i: {i} for i in set(range(tokens)) - set(remove[row].tolist())}
        for i, first in zip(remove[row].tolist(), into[row].tolist(), strict=True):
            found[first].add(i)
        assert sorted(map(sorted, found.values())) == sorted(map(sorted, clusters))


@given(seed=st.integers(0, 2**31), tokens=st.integers(2, 20), data=st.data())
@examples(1)
def test_a_medoid_is_the_member_with_the_least_weighted_distance(
    seed: int, tokens: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, tokens))
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, 3, generator=generator)
    x[:, 1] = x[:, 0]  # twins: two medoids may lie on each other, and neither loses its cluster
    weight = torch.rand(2, tokens, generator=generator) + 0.01
    medoids, cluster = k_medoids(x, weight, count)
    for row in range(2):
        assert len(set(medoids[row].tolist())) == count
        assert cluster[row, medoids[row]].tolist() == list(range(count))
        apart = torch.cdist(x[row], x[row])
        for i in range(tokens):
            nearest = apart[i, medoids[row]]
            assert float(nearest[cluster[row, i]]) == pytest.approx(float(nearest.min()), abs=1e-6)


def test_windows_merge_where_patches_are_alike() -> None:
    grid = (4, 5)
    x = torch.randn(1, 21, 8, generator=torch.Generator().manual_seed(0))
    patches = x[0, 1:].view(4, 5, 8)  # a view: what is written here is written there
    patches[2:4, 2:4] = torch.randn(8, generator=torch.Generator().manual_seed(1))
    patches[0:2, 0:2] = F.normalize(torch.randn(2, 2, 8), dim=-1) * 0.05 + 1.0
    keep, remove, target = merge_windows(x, 5, 1, grid)
    corner = [1 + 2 * 5 + 2 + i for i in (0, 1, 5, 6)]
    assert remove.tolist() == [[*corner[1:], 2, 6]], (
        "three of the four that are equal, then two of the next window"
    )
    assert keep[0, target[0]].tolist() == [corner[0]] * 3 + [1] * 2


def test_more_than_all_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="removed must be between 0 and 6, three of each 2×2 window; got 7"):
        merge_windows(torch.randn(1, 16, 4), 7, 1, (3, 5))


def test_windows_need_a_grid() -> None:
    with pytest.raises(ValueError, match="needs the grid of patches; got None"):
        METHODS["local"].load()(inputs_of(0, (4, 4), 3)._replace(grid=None))


def test_turbo_spares_what_the_class_token_sees() -> None:
    inputs = inputs_of(11, (4, 4), 4)
    blind = inputs._replace(query=torch.zeros_like(inputs.query))
    turbo, tome = METHODS["turbo"].load(), METHODS["tome"].load()
    # A class token that sees all alike changes nothing.
    assert all(torch.equal(a, b) for a, b in zip(turbo(blind).indices, tome(blind).indices, strict=True))
    seen = int(tome(inputs).indices.remove[0, 0])
    key = inputs.key.clone()
    query = inputs.query.clone()
    query[0, :, 0] = 50 * key[0, :, seen]
    looking = inputs._replace(query=query)
    assert seen in tome(looking).indices.remove[0].tolist()
    assert seen not in turbo(looking).indices.remove[0].tolist()


def test_pitome_merges_only_among_the_tokens_of_highest_energy() -> None:
    inputs = inputs_of(13, (5, 5), 6)
    reduced = METHODS["pitome"].load()(inputs)
    for row in range(2):
        keys = inputs.key[row].mean(dim=0)[1:].double().numpy()
        unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
        over = unit @ unit.T - 0.75 * (1 - inputs.depth)
        energy = np.where(over > 0, over, np.exp(over) - 1).mean(axis=-1)
        ranked = np.argsort(-energy)[:12]
        assert reduced.indices.remove[row].tolist() == (ranked[0::2] + 1).tolist()
        for i, into in zip(ranked[0::2], reduced.indices.target[row].tolist(), strict=True):
            best = max(ranked[1::2], key=lambda j, i=i, unit=unit: float(unit[i] @ unit[j]))
            assert int(reduced.indices.keep[row, into]) == best + 1


def test_mctf_weighs_similarity_importance_and_size() -> None:
    inputs = inputs_of(17, (3, 3), 2, sized=True)
    reduced = METHODS["mctf"].load()(inputs)
    seen = attention_received(inputs.query, inputs.key, inputs.scale, inputs.size)
    for row in range(2):
        keys = F.normalize(inputs.key[row].mean(dim=0), dim=-1)
        size, attention = inputs.sizes()[row], seen[row]

        def worth(i: int, j: int, keys: Tensor = keys, size: Tensor = size, a: Tensor = attention) -> float:
            alone = (a[i] * a[j]) ** (-1 / 20) * (size[i] * size[j]) ** (-1 / 40)
            return float((keys[i] @ keys[j] + 1) / 2 * alone)

        best = {i: max(range(1, 10, 2), key=lambda j, i=i: worth(i, j)) for i in range(2, 10, 2)}
        gone = sorted(best, key=lambda i: -worth(i, best[i]))[:2]
        assert reduced.indices.remove[row].tolist() == gone
        merged = groups_of(reduced, row)
        for i in gone:
            (place,) = (p for p, group in enumerate(merged) if i in group)
            members = sorted(merged[place])
            weight = (size * attention)[members]
            mean = (inputs.x[row, members] * weight[:, None]).sum(0) / weight.sum()
            torch.testing.assert_close(reduced.tokens[row, place], mean)


def test_attention_received_is_the_mean_over_all_patches_that_attend() -> None:
    inputs = inputs_of(19, (3, 3), 0, sized=True)
    size = inputs.sizes()
    logits = inputs.query @ inputs.key.transpose(-1, -2) * inputs.scale + size.log()[:, None, None]
    attention = logits.softmax(-1).mean(1)
    expected = (attention * (size / size.sum(-1, keepdim=True))[..., None]).sum(1)
    torch.testing.assert_close(
        attention_received(inputs.query, inputs.key, inputs.scale, inputs.size), expected
    )


def test_diffrate_drops_the_least_attended_and_merges_the_next() -> None:
    inputs = inputs_of(23, (4, 4), 5)
    reduced = METHODS["diffrate"].load()(inputs)
    assert reduced.dropped == 2
    seen = inputs.class_attention().mean(dim=1)
    for row in range(2):
        ranked = sorted(range(1, 17), key=lambda j, row=row: float(seen[row, j]))
        assert reduced.indices.remove[row].tolist() == ranked[:5]
        unit = F.normalize(inputs.x[row], dim=-1)
        into = [max(ranked[5:], key=lambda j, i=i, unit=unit: float(unit[i] @ unit[j])) for i in ranked[2:5]]
        target = reduced.indices.target[row].tolist()
        assert target[:2] == [DROPPED, DROPPED]
        assert [int(reduced.indices.keep[row, place]) for place in target[2:]] == into


def test_what_diffrate_published_starts_dense_and_only_falls() -> None:
    for counts in TOKENS.values():
        assert counts[:2] == (197, 197)
        assert list(counts) == sorted(counts, reverse=True)
        assert len(counts) == 13


def test_what_is_unlike_all_others_stays() -> None:
    inputs = inputs_of(29, (4, 4), 8)
    x = torch.ones(1, 17, 12) + 0.1 * inputs.x[:1]
    x[0, 5] = -1.0
    reduced = METHODS["unlike"].load()(image(inputs, 0)._replace(x=x))
    assert reduced.pruned.all()
    assert reduced.indices.keep[0, 1] == 5, "the rarest comes first"
