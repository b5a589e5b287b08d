"""Scores that may stand for a missing class token, and the network that one is withheld from."""

from __future__ import annotations

import pytest
import torch

from prunepool.lab.token_importance import SCORES, _Scored, by_nothing, fit_head, without_class_token
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan
from prunepool.reduction.step import StepInputs


@pytest.fixture
def inputs() -> StepInputs:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 17, 8, generator=generator) for _ in range(3))
    size = torch.ones(2, 17)
    size[:, 3] = 4
    x = torch.randn(2, 17, 24, generator=generator)
    return StepInputs(x, size, q, k, v, 8**-0.5, 5, 0.0, 1, class_token=False)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_a_share_of_each_patch(name: str, inputs: StepInputs) -> None:
    scores = SCORES[name](inputs)
    assert scores.shape == (2, 16)
    assert (scores >= 0).all()
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


def test_a_method_reads_the_score_that_it_is_given(inputs: StepInputs) -> None:
    def favour_the_last(given: StepInputs) -> torch.Tensor:
        return torch.linspace(0, 1, 16).expand(2, -1)

    gone = _Scored("prune", favour_the_last)(inputs).indices.remove
    assert torch.equal(gone.sort(dim=1).values, torch.arange(1, 6).expand(2, -1))
    assert not torch.equal(_Scored("prune", by_nothing)(inputs).indices.keep, gone)


@pytest.mark.parametrize("kept", [True, False])
@torch.inference_mode()
def test_a_class_token_that_is_withheld_is_unread_or_gone(kept: bool, tiny: LoadedModel) -> None:
    network = without_class_token(tiny, kept=kept)
    assert (network.geometry.pool, network.geometry.prefix_tokens) == ("avg", int(kept))
    images = torch.randn(6, 3, 224, 224)
    unexplained = fit_head(network, tiny.vit.vit.head, images, torch.randn(6, 192))
    assert 0 <= unexplained < 1
    plan = ReductionPlan((3, 6), (60, 30), (0.0, 0.0), "fuse")
    reduced = ReducingViT(network.vit, _Scored("fuse", by_nothing))(images, [(plan, 6)]).logits
    assert reduced.shape == network(images, [(DENSE, 6)]).logits.shape == (6, 5)
