"""A pass with dynamic shapes: one program for all plans of a family, with the plain pass's answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunepool.backends.dynamic_pass import DynamicPass
from prunepool.backends.plan_family import PlanFamily
from prunepool.models.vit import ReducingViT
from prunepool.reduction.curve import PlanCurve
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import (
    DENSE,
    ReductionPlan,
    default_blocks,
    max_ratio,
    plan_for_ratio,
)
from prunepool.store import Geometry

CONVERTED = [name for name, method in METHODS.items() if method.converts]

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 4, "num_classes": 7}
PATCHES = 196


@pytest.fixture(scope="module")
def network(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def geometry(network: ReducingViT) -> Geometry:
    return network.geometry


def plans_of(method: str) -> list[ReductionPlan]:
    """A plan for each number of tokens that a method can remove."""
    most = max_ratio(PATCHES, len(default_blocks(4, method)))
    return [
        plan_for_ratio(gone / PATCHES, patches=PATCHES, depth=4, method=method)
        for gone in range(round(most * PATCHES) + 1)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_plans_of_a_model_are_one_family(method: str, geometry: Geometry) -> None:
    plans = plans_of(method)
    (family,) = PlanFamily.all_of(plans)
    assert family == PlanFamily(method, default_blocks(4, method))
    for plan in (*plans, DENSE):
        counts = family.counts(plan, geometry)
        assert counts is not None
        wanted = plan.tokens(geometry.tokens, geometry.prefix_tokens)[1:]
        assert counts == (wanted or (geometry.tokens,) * len(family.blocks))


def test_where_nothing_is_removed_one_family_remains(geometry: Geometry) -> None:
    (family,) = PlanFamily.all_of([DENSE])
    assert family.blocks == ()
    assert family.counts(DENSE, geometry) == ()


def test_plans_of_two_methods_are_two_families(geometry: Geometry) -> None:
    limits = (7e-5,) * 2
    plans = [ReductionPlan((1, 2), (10, 10), limits, "ppt"), ReductionPlan((1, 3), (30, 30), limits, "fuse")]
    curve = PlanCurve(plans, patches=PATCHES)
    ppt, fuse = PlanFamily.all_of(curve.plan(gone) for gone in range(curve.max_removed + 1))
    assert (ppt.method, fuse.method) == ("ppt", "fuse")
    assert fuse.counts(plans[1], geometry) == (
        167,
        167,
        137,
    )
    assert ppt.counts(plans[1], geometry) is None


@given(removed=st.lists(st.integers(0, 20), min_size=3, max_size=3), method=st.sampled_from(list(METHODS)))
def test_a_plan_may_leave_blocks_out(removed: list[int], method: str, geometry: Geometry) -> None:
    plan = ReductionPlan((1, 2, 3), tuple(removed), (0.0,) * 3, method)
    counts = PlanFamily(method, (1, 2, 3)).counts(plan, geometry)
    assert counts == plan.tokens(geometry.tokens, geometry.prefix_tokens)[1:]


@pytest.mark.parametrize("method", CONVERTED)
@pytest.mark.parametrize("removed", [(0, 30, 20), (30, 0, 20), (0, 0, 31), (1, 0, 0)])
@torch.inference_mode()
def test_a_block_that_removes_nothing_changes_nothing(
    removed: tuple[int, ...], method: str, network: ReducingViT
) -> None:
    """Not the order of the tokens either, after which pooling would pair others."""
    plan = ReductionPlan((1, 2, 3), removed, (7e-5,) * 3, method)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    family = PlanFamily(method, (1, 2, 3))
    counts = family.counts(plan, network.geometry)
    assert counts is not None
    logits, *_ = DynamicPass(network, family)(images, torch.full((3,), 7e-5), *map(torch.zeros, counts))
    torch.testing.assert_close(logits, network(images, [(plan, 2)]).logits)


@torch.inference_mode()
def test_a_pass_without_reducing_blocks_can_be_exported(network: ReducingViT) -> None:
    one = DynamicPass(network, PlanFamily("ppt", ()))
    images = torch.randn(2, 3, 224, 224)
    (logits,) = one.exported(224).module()(images, torch.zeros(0))
    torch.testing.assert_close(logits, network(images, [(DENSE, 2)]).logits)


@pytest.mark.parametrize(("method", "blocks"), [("ppt", ()), ("fuse", (1, 2))])
@torch.inference_mode()
def test_the_last_block_computes_only_what_the_head_reads(
    method: str, blocks: tuple[int, ...], network: ReducingViT
) -> None:
    """At ratio 0 too: the plain pass computes all tokens there, for timm's bits, which no runtime has."""
    one = DynamicPass(network, PlanFamily(method, blocks))
    rows: list[int] = []
    one.network.vit.blocks[-1].mlp.register_forward_hook(
        lambda mlp, given, out: rows.append(given[0].shape[0])
    )
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    logits, *_ = one(images, torch.zeros(len(blocks)), *(torch.zeros(197) for _ in blocks))
    assert rows == [2]
    torch.testing.assert_close(logits, network(images, [(DENSE, 2)]).logits)


def test_a_plan_for_other_blocks_is_not_of_the_family(geometry: Geometry) -> None:
    assert PlanFamily("ppt", (1, 2)).counts(ReductionPlan((1, 3), (9, 9), (0.0, 0.0)), geometry) is None


@pytest.mark.parametrize("method", CONVERTED)
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.7])
@torch.inference_mode()
def test_logits_and_stages_are_those_of_the_plain_pass(
    ratio: float, method: str, network: ReducingViT
) -> None:
    plan = plan_for_ratio(ratio, patches=PATCHES, depth=4, method=method) if ratio else DENSE
    (family,) = PlanFamily.all_of(plans_of(method))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    wanted = network(images, [(plan, 2)])
    counts = family.counts(plan, network.geometry)
    assert counts is not None
    limits = torch.full((len(counts),), 7e-5)
    logits, *rest = DynamicPass(network, family)(images, limits, *map(torch.zeros, counts))
    torch.testing.assert_close(logits, wanted.logits)
    stages = [rest[i : i + 5] for i in range(0, len(rest), 5)]
    for (*indices, pruned, _), theirs in zip(stages, wanted.stages, strict=True):
        assert torch.equal(pruned, theirs.pruned)
        assert all(map(torch.equal, indices, theirs.indices))


@torch.inference_mode()
def test_thresholds_are_the_images_own(network: ReducingViT) -> None:
    """They are an input, for a model's plans scale them with the tokens that a stage sees."""
    (family,) = PlanFamily.all_of(plans_of("ppt"))
    one = DynamicPass(network, family)
    images = torch.randn(2, 3, 224, 224)
    counts = [*map(torch.zeros, (150, 110, 70))]
    pruned = [
        one(images, torch.tensor(limits), *counts)[4::5] for limits in ([0.0, 1.0, 0.0], [1.0, 0.0, 1.0])
    ]
    assert [[bool(stage.all()) for stage in stages] for stages in pruned] == [
        [True, False, True],
        [False, True, False],
    ]


def test_a_network_in_half_precision_is_copied_in_float32(random_vit: Callable[..., nn.Module]) -> None:
    half = ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL).to(torch.bfloat16)).requires_grad_(False)
    one = DynamicPass(half, PlanFamily("ppt", (1, 2, 3)))
    assert one.network.dtype == torch.float32
    assert half.dtype == torch.bfloat16
