"""Positions travel with the tokens that are left, and pooling counts each token as often as the patches in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prunepool.lab.small_networks import randomise, small_network
from prunepool.models.attention import self_attention
from prunepool.models.families import reducing
from prunepool.models.pooling import answer
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import ReductionPlan, plan_for_ratio

#: One with a position of each kind inside attention, and two without any.
KINDS = (
    "eva02_tiny_patch14_336",  # rotary, average pooling beside a class token
    "vit_small_patch16_rope_mixed_224",  # rotary, other angles in each block and head
    "vit_small_patch16_dinov3",  # rotary, registers, other channels are paired
    "vit_pe_core_tiny_patch16_384",  # rotary, attention pooling of all tokens
    "beit_base_patch16_224",  # relative
    "vit_base_patch16_siglip_224",  # attention pooling, no prefix at all
    "vit_medium_patch16_reg4_gap_256",  # average pooling, registers, no class token
)


def network_of(name: str) -> ReducingViT:
    return reducing(randomise(small_network(name)))


def images_for(network: ReducingViT, count: int) -> torch.Tensor:
    side = network.vit.patch_embed.img_size[0]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_tokens_in_another_order_take_their_positions_along(name: str) -> None:
    network = network_of(name)
    tokens = network.embed(images_for(network, 2))
    prefix, count = network.geometry.prefix_tokens, network.geometry.tokens
    patches = torch.randperm(count - prefix, generator=torch.Generator().manual_seed(3)) + prefix
    order = torch.cat((torch.arange(prefix), patches))
    expected = network.advance(tokens, 0, network.geometry.depth)[:, order]
    place = order.expand(2, -1)
    found = network.advance(tokens[:, order], 0, network.geometry.depth, place)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    if any(one is not None for one in network.positions()):
        lost = network.advance(tokens[:, order], 0, network.geometry.depth)
        assert (lost - expected).abs().max() > 1e-2, "without its place a token would be turned otherwise"


@pytest.mark.parametrize("method", ["ppt", "fuse", "pool", "prune"])
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_336", "beit_base_patch16_224"])
@torch.inference_mode()
def test_the_place_of_a_token_is_that_of_the_patch_that_was_kept(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(name)
    seen: list[torch.Tensor | None] = []

    def noting(attention: Any, y: torch.Tensor, segments: Any, positions: Any) -> Any:
        seen.append(segments[0].place)
        return self_attention(attention, y, segments, positions)

    monkeypatch.setattr("prunepool.models.vit.self_attention", noting)
    plan = ReductionPlan((0, 2), (5, 4), (1e-5, 1e-5), method)
    stages = network(images_for(network, 2), [(plan, 2)]).stages
    first, second = (stage.indices.keep for stage in stages)
    assert seen[0] is None
    assert seen[1] is not None
    assert torch.equal(seen[1], first)
    assert seen[3] is not None
    assert torch.equal(seen[3], first.gather(1, second))


@torch.inference_mode()
def test_a_merged_token_counts_as_often_in_the_mean_as_the_patches_in_it() -> None:
    network = network_of("vit_medium_patch16_reg4_gap_256")
    tokens = torch.randn(2, network.geometry.tokens, network.geometry.width)
    prefix = network.geometry.prefix_tokens
    doubled = torch.cat((tokens, tokens[:, prefix : prefix + 3]), dim=1)
    size = torch.ones(tokens.shape[:2])
    size[:, prefix : prefix + 3] = 2
    expected = answer(network.vit, doubled, None)
    torch.testing.assert_close(answer(network.vit, tokens, size), expected)
    assert not torch.allclose(answer(network.vit, tokens, None), expected)


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_224", "vit_pe_core_tiny_patch16_384"])
@torch.inference_mode()
def test_a_merged_token_counts_as_often_in_attention_pooling(name: str) -> None:
    network = network_of(name)
    tokens = torch.randn(2, network.geometry.tokens, network.geometry.width)
    doubled = torch.cat((tokens, tokens[:, -3:]), dim=1)
    size = torch.ones(tokens.shape[:2])
    size[:, -3:] = 2
    expected = answer(network.vit, doubled, None)
    torch.testing.assert_close(answer(network.vit, tokens, size), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answer(network.vit, tokens, None), expected)


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "fuse") for name in KINDS), *(("vit_base_patch16_siglip_224", method) for method in METHODS)],
)
@torch.inference_mode()
def test_an_image_does_not_care_who_shares_its_batch(name: str, method: str) -> None:
    network = network_of(name)
    images = images_for(network, 3)
    geometry = network.geometry
    plans = [
        plan_for_ratio(ratio, patches=geometry.patches, depth=geometry.depth, method=method)
        for ratio in (0.0, 0.3, 0.6)
    ]
    mixed = network(images, [(plan, 1) for plan in plans]).logits
    for i, plan in enumerate(plans):
        alone = network(images[i : i + 1], [(plan, 1)]).logits
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1e-4, rtol=1e-4)
