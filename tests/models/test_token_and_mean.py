"""A head that reads the class token and the mean of the patches, after tokens were merged."""

from __future__ import annotations

import pytest
import torch

from prunepool.models.loader import new_network
from prunepool.models.pooling import answer
from prunepool.reduction.plan import DENSE, plan_for_ratio
from prunepool.store import NetworkOptions

OPTIONS = NetworkOptions(depth=4, embed_dim=24, num_heads=3, global_pool="tokenavg")


def test_a_merged_token_counts_as_the_tokens_that_it_stands_for() -> None:
    torch.manual_seed(0)
    network = new_network("vit_base_patch16_224", 5, 64, OPTIONS)
    tokens = torch.randn(2, 9, 24)
    twice = torch.cat([tokens, tokens[:, 5:]], dim=1)
    size = torch.tensor([1.0] * 5 + [2.0] * 4).expand(2, 9)
    with torch.inference_mode():
        whole = answer(network.vit, twice, None)
        torch.testing.assert_close(answer(network.vit, tokens, size), whole)


@pytest.mark.parametrize("outputs", [0, 5])
def test_its_features_have_both(outputs: int) -> None:
    network = new_network("vit_base_patch16_224", outputs, 64, OPTIONS)
    plan = plan_for_ratio(0.5, patches=16, depth=4)
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 64, 64), [(DENSE, 1), (plan, 1)]).logits
    assert logits.shape == (2, outputs or 48)
    assert network.geometry.outputs == (outputs or 48)
