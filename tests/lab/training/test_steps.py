"""The parts of a step: mixing, losses, passes, the optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunepool.lab.training.losses import divergence, feature_loss, label_loss
from prunepool.lab.training.mixing import mix
from prunepool.lab.training.muon import Muon, orthogonalised
from prunepool.lab.training.optimisers import learning_rate, make_optimisers
from prunepool.lab.training.passes import dense_pass, random_patches, reduced_pass
from prunepool.lab.training.recipe import Recipe
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import DENSE


@given(rows=st.integers(2, 40), columns=st.integers(2, 40), seed=st.integers(0, 99))
def test_orthogonalised_matrices_have_singular_values_near_one(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(rows, columns, generator=generator))
    values = torch.linalg.svdvals(orthogonalised(100 * q))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_goes_downhill() -> None:
    torch.manual_seed(0)
    target, x = torch.randn(6, 4), torch.randn(64, 4)
    weight = torch.zeros(6, 4, requires_grad=True)
    optimiser = Muon([weight], lr=0.1)
    losses = []
    for _ in range(60):
        loss = (x @ (weight - target).T).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]


def test_every_parameter_has_one_optimiser(small: LoadedModel) -> None:
    vit = small.vit.vit
    for optimiser in ("muon", "adamw"):
        made = make_optimisers(vit, Recipe(optimiser=optimiser))
        held = [p for one in made for group in one.param_groups for p in group["params"]]
        assert sorted(map(id, held)) == sorted(map(id, vit.parameters()))


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def test_a_mixed_image_shows_as_much_of_each_as_it_says() -> None:
    images = torch.stack([torch.full((3, 32, 32), float(i)) for i in range(4)])
    for seed in range(8):
        mixed, partner, share = mix(images, np.random.default_rng(seed))
        own, other = torch.arange(4.0), partner.float()
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), own * share + other * (1 - share))


def test_losses_vanish_where_student_and_teacher_agree() -> None:
    logits, tokens = torch.randn(3, 5), [torch.randn(3, 7, 8)]
    assert divergence(logits, logits).item() == pytest.approx(0, abs=1e-6)
    assert feature_loss(tokens, tokens).item() == 0
    assert divergence(logits, -logits).item() > 0.1


def test_a_mixed_image_has_both_labels() -> None:
    logits, labels = torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])
    partner = torch.tensor([1, 0])
    whole = label_loss(logits, labels, 0.0, partner, torch.tensor([1.0, 1.0]))
    swapped = label_loss(logits, labels, 0.0, partner, torch.tensor([0.0, 0.0]))
    assert whole.item() == pytest.approx(4.5, abs=0.01)
    assert swapped.item() == pytest.approx(4.5, abs=0.01)
    right = label_loss(logits[:1], labels[:1], 0.0, partner[:1] * 0, torch.tensor([1.0]))
    assert right.item() < 0.01


@pytest.fixture
def images(small: LoadedModel) -> torch.Tensor:
    size = small.manifest.input_size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_dense_pass_is_the_models_own(small: LoadedModel, images: torch.Tensor) -> None:
    passed = dense_pass(small.vit, images, None)
    torch.testing.assert_close(passed.logits, small(images, DENSE).logits)
    assert len(passed.features) == small.geometry.depth + 1


@torch.no_grad()
def test_a_reduced_pass_is_the_models_own(small: LoadedModel, images: torch.Tensor) -> None:
    passed = reduced_pass(small.vit, images, small.plan(0.755))
    torch.testing.assert_close(passed.logits, small(images, small.plan(0.755)).logits)
    first = small.plan(0.755).blocks[0]
    assert len(passed.features) == 1 + first  # of the embedding and the blocks before the first that reduces


@torch.no_grad()
def test_all_patches_are_as_good_as_none_chosen(small: LoadedModel, images: torch.Tensor) -> None:
    patches = random_patches(3, small.geometry.patches, small.geometry.patches, torch.Generator())
    torch.testing.assert_close(
        dense_pass(small.vit, images, patches).logits, dense_pass(small.vit, images, None).logits
    )


@torch.no_grad()
def test_some_patches_are_some_tokens(small: LoadedModel, images: torch.Tensor) -> None:
    patches = random_patches(3, small.geometry.patches, 9, torch.Generator().manual_seed(0))
    assert dense_pass(small.vit, images, patches).features[-1].shape[1] == small.geometry.prefix_tokens + 9
    assert all(len(set(row.tolist())) == 9 for row in patches)
    assert patches[0].tolist() != patches[1].tolist()
