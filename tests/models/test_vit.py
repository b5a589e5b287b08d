"""Mixed plans in one pass, every supported architecture, half precision, and static graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import ParallelThingsBlock
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunepool.errors import ArchitectureUnsupported
from prunepool.models.plain_vit import check
from prunepool.models.vit import Forward, ReducingViT
from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, plan_for_ratio

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 8, "img_size": 64, "num_classes": 7}

SUPPORTED = {
    "deit_tiny_patch16_224": {},
    "deit_small_patch16_224": {},
    "deit_base_patch16_224": {},
    "deit_tiny_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "vit_small_patch14_reg4_dinov2": {"img_size": 224, "num_classes": 10},
}


def plans_of(network: ReducingViT, *ratios: float) -> list[ReductionPlan]:
    geometry = network.geometry
    return [plan_for_ratio(r, patches=geometry.patches, depth=geometry.depth) for r in ratios]


@pytest.fixture(scope="module")
def small(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **{**SMALL, "img_size": 224, "patch_size": 16}))


@pytest.mark.parametrize("name", SUPPORTED)
@torch.inference_mode()
def test_dense_is_timm_to_the_bit(name: str, random_vit: Callable[..., nn.Module]) -> None:
    vit = random_vit(name, **SUPPORTED[name])
    check(vit, name)
    network = ReducingViT(vit)
    images = torch.randn(2, 3, 224, 224)
    expected = vit(images)
    assert expected.std() > 0.01, "a model that answers nothing proves nothing"
    assert torch.equal(network(images, [(DENSE, 2)]).logits, expected)


@pytest.mark.parametrize("name", [name for name in SUPPORTED if "base" not in name])
@torch.inference_mode()
def test_prefix_tokens_never_leave(name: str, random_vit: Callable[..., nn.Module]) -> None:
    network = ReducingViT(random_vit(name, **SUPPORTED[name]))
    (plan,) = plans_of(network, 0.755)
    logits, stages = network(torch.randn(2, 3, 224, 224), [(plan, 2)])
    assert torch.isfinite(logits).all()
    prefix = torch.arange(network.geometry.prefix_tokens).expand(2, -1)
    assert len(stages) == 3
    for stage in stages:
        assert torch.equal(stage.indices.keep[:, : network.geometry.prefix_tokens], prefix)


REFUSED = [
    ("vit_tiny_patch16_224", {"global_pool": ""}, "gives all tokens and no single vector"),
    ("vit_tiny_patch16_224", {"global_pool": "prr"}, "pools its tokens by 'prr'"),
    ("eva02_tiny_patch14_224", {}, "is a Eva"),
    ("cait_xxs24_224", {}, "is a Cait"),
    ("vit_tiny_patch16_224", {"depth": 3}, "has 3 blocks; at least 4"),
    ("vit_tiny_patch16_224", {"block_fn": ParallelThingsBlock}, "made of ParallelThingsBlock"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_cannot_be_reduced_is_refused_by_name(name: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        vit = timm.create_model(name, pretrained=False, **options)
    with pytest.raises(ArchitectureUnsupported, match=message) as caught:
        check(vit, name)
    assert name in caught.value.detail


@given(ratios=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.755, 0.87]), min_size=1, max_size=7))
@examples(0.5)
@torch.inference_mode()
def test_an_image_does_not_care_who_shares_its_batch(small: ReducingViT, ratios: list[float]) -> None:
    ratios = sorted(ratios)
    images = torch.randn(len(ratios), 3, 224, 224, generator=torch.Generator().manual_seed(len(ratios)))
    plans = plans_of(small, *ratios)
    mixed = small(images, [(plan, 1) for plan in plans]).logits
    for i, plan in enumerate(plans):
        alone = small(images[i : i + 1], [(plan, 1)]).logits
        torch.testing.assert_close(mixed[i : i + 1], alone, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_plans_with_other_blocks_share_a_batch(small: ReducingViT) -> None:
    plans = [
        DENSE,
        ReductionPlan((1,), (60,), (0.0,)),
        ReductionPlan((2, 3, 4, 5), (20,) * 4, (1.0,) * 4),
        ReductionPlan((2, 5), (20, 90), (1e-5, 1.0)),
        ReductionPlan((7,), (98,), (1.0,)),
    ]
    images = torch.randn(5, 3, 224, 224)
    mixed = small(images, [(plan, 1) for plan in plans]).logits
    for i, plan in enumerate(plans):
        torch.testing.assert_close(
            mixed[i], small(images[i : i + 1], [(plan, 1)]).logits[0], atol=1e-4, rtol=0
        )


@torch.inference_mode()
def test_a_batch_with_too_large_blocks_of_memory_goes_in_passes(
    small: ReducingViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = list(zip(plans_of(small, 0.0, 0.5, 0.755), [3, 4, 1], strict=True))
    images = torch.randn(8, 3, 224, 224)
    whole = small(images, groups)
    widest = 4 * SMALL["embed_dim"] * images.element_size()
    monkeypatch.setattr("prunepool.models.vit._KEPT_BYTES", 3 * small.geometry.tokens * widest)
    largest = 0

    def note(_: nn.Module, __: object, hidden: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, hidden.shape[0] // small.geometry.tokens)

    hook = small.vit.blocks[0].mlp.fc1.register_forward_hook(note)
    cut = small(images, groups)
    hook.remove()
    assert largest == 3
    torch.testing.assert_close(cut.logits, whole.logits, atol=1e-4, rtol=0)
    for name, forward in (("whole", whole), ("cut", cut)):
        blocks = [stage.block for stage in forward.stages]
        assert blocks == sorted(blocks), name
    fates = [
        {(s.block, s.first + i): bool(p) for s in f.stages for i, p in enumerate(s.pruned)}
        for f in (whole, cut)
    ]
    assert fates[0] == fates[1]
    assert len(fates[0]) == 5 * len(groups[1][0].blocks), "every reduced image at every stage"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_stays_close(dtype: torch.dtype, random_vit: Callable[..., nn.Module]) -> None:
    vit = random_vit("vit_tiny_patch16_224", **{**SMALL, "img_size": 224})
    images = torch.randn(4, 3, 224, 224)
    full = ReducingViT(vit)
    (plan,) = plans_of(full, 0.755)
    expected = full(images, [(plan, 4)]).logits
    half = ReducingViT(vit.to(dtype))(images, [(plan, 4)]).logits
    assert half.dtype == torch.float32
    assert (half - expected).abs().max() < 0.1 * expected.abs().max()


@torch.inference_mode()
def test_groups_must_sum_to_the_batch(small: ReducingViT) -> None:
    with pytest.raises(PlanError, match="summing to 2 images"):
        small(torch.randn(2, 3, 224, 224), [(DENSE, 3)])


@torch.inference_mode()
def test_a_plan_for_a_deeper_model_is_refused(small: ReducingViT) -> None:
    with pytest.raises(PlanError, match="below the model's depth of 8"):
        small(torch.randn(1, 3, 224, 224), [(ReductionPlan((9,), (5,), (0.0,)), 1)])


class _Operators(TorchDispatchMode):
    """Records which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


#: Operators whose result must reach the host, or whose shape depends on the data.
WAITING = ("nonzero", "_local_scalar_dense", "item", "masked_select", "unique", "is_nonzero", "equal")


@torch.inference_mode()
def test_nothing_waits_for_the_device(small: ReducingViT) -> None:
    groups = [(plan, 1) for plan in plans_of(small, 0.0, 0.3, 0.755)]
    with _Operators() as seen:
        small(torch.randn(3, 3, 224, 224), groups)
    assert any("index_add" in name for name in seen.names), "the reduction did not run"
    assert not [name for name in seen.names if name.split(".")[1] in WAITING]


@torch.inference_mode()
def test_the_whole_pass_runs_where_there_is_no_data(random_vit: Callable[..., nn.Module]) -> None:
    """On the meta device anything that looks at a value raises."""
    network = ReducingViT(random_vit("vit_tiny_patch16_224", **{**SMALL, "img_size": 224})).to("meta")
    groups = [(plan, 1) for plan in plans_of(network, 0.0, 0.5, 0.755)]
    logits = network(torch.empty(3, 3, 224, 224, device="meta"), groups).logits
    assert logits.shape == (3, 7)


class _Fixed(nn.Module):
    def __init__(self, network: ReducingViT, plan: ReductionPlan) -> None:
        super().__init__()
        self.network, self.plan = network, plan

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: Forward = self.network(images, [(self.plan, images.shape[0])])
        return out.logits


@torch.inference_mode()
def test_a_fixed_plan_can_be_exported(small: ReducingViT) -> None:
    (plan,) = plans_of(small, 0.755)
    images = torch.randn(2, 3, 224, 224)
    exported = torch.export.export(_Fixed(small, plan), (images,))
    torch.testing.assert_close(exported.module()(images), small(images, [(plan, 2)]).logits)
