"""Passes by OpenVINO: PyTorch's answers for every plan and any number of images, from one converted network."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunepool.backends.compiled_pass import Answers, CompiledPasses
from prunepool.backends.dynamic_pass import DynamicPass
from prunepool.backends.openvino_compile import open_network
from prunepool.backends.plan_family import PlanFamily
from prunepool.errors import ConversionInvalid
from prunepool.lab.small_networks import randomise, small_network
from prunepool.models.families import reducing
from prunepool.models.vit import Forward, Group, ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan, default_blocks, max_ratio, plan_for_ratio

pytest.importorskip("openvino")

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 4, "num_classes": 7}
SIZE = 224
PATCHES = 196
PPT = PlanFamily("ppt", (1, 2, 3))


@pytest.fixture(scope="module")
def network(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def passes(network: ReducingViT) -> Callable[[str], CompiledPasses]:
    """The small network's pass by a method, in float32 with two threads; converted once."""
    made: dict[str, CompiledPasses] = {}

    def get(method: str) -> CompiledPasses:
        if method not in made:
            family = PlanFamily(method, default_blocks(4, method))
            made[method] = open_network(network, family, SIZE, ("float32",), 2)["float32"]
        return made[method]

    return get


def noise(images: int, seed: int = 1) -> Tensor:
    return torch.randn(images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def plan_of(gone: int, method: str) -> ReductionPlan:
    return plan_for_ratio(gone / PATCHES, patches=PATCHES, depth=4, method=method) if gone else DENSE


def by_block(answers: Forward | Answers) -> dict[int, list[Tensor]]:
    """What each block's stages say together, [B, …] each, in the order of the batch."""
    blocks: dict[int, list[list[Tensor]]] = {}
    for stage in answers.stages:
        parts = blocks.setdefault(stage.block, [])
        assert stage.first == sum(len(part[0]) for part in parts)
        parts.append([torch.as_tensor(part) for part in (*stage.indices, stage.pruned)])
    return {block: [torch.cat(own) for own in zip(*parts, strict=True)] for block, parts in blocks.items()}


def in_places(keep: Tensor, remove: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """The same choice, with removed tokens in the order of their places: who of them leaves first means nothing."""
    order = remove.argsort(dim=1)
    return keep, remove.gather(1, order), target.gather(1, order)


def choices_that_differ(found: Answers, wanted: Forward) -> int:
    """Images times stages in which other tokens left; all else has to be the same."""
    torch.testing.assert_close(torch.from_numpy(found.logits), wanted.logits, atol=1e-2, rtol=0)
    ours, theirs = by_block(found), by_block(wanted)
    assert list(ours) == list(theirs)
    differ = 0
    for block, tensors in ours.items():
        *indices, pruned = tensors
        *expected, their_pruned = theirs[block]
        assert torch.equal(pruned, their_pruned)
        same = [(a == b).all(dim=1) for a, b in zip(in_places(*indices), in_places(*expected), strict=True)]
        differ += int((~torch.stack(same).all(dim=0)).sum())
    return differ


#: How many tokens leave: none, odd and even, few and many, divided among three blocks with every remainder.
FEW = (0, 1, 2, 3, 7, 20, 41, 96)
MANY = (*range(40), *range(40, PATCHES, 7))


#: A conversion takes up to a minute and a half, beside other tests longer.
SLOW = (pytest.mark.nightly, pytest.mark.timeout(600))


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        pytest.param("ppt", FEW, id="ppt"),
        pytest.param("ward", FEW, id="ward"),
        *(
            pytest.param(method, MANY, id=f"{method}, many", marks=SLOW)
            for method in ("ppt", "ward", "fuse", "tome", "unlike")
        ),
    ],
)
@torch.inference_mode()
def test_every_plan_gets_pytorchs_answers(
    method: str, counts: tuple[int, ...], network: ReducingViT, passes: Callable[[str], CompiledPasses]
) -> None:
    """Odd and even counts, many and few, in turns with one, two and three images; one pass for all."""
    one = passes(method)
    most = round(max_ratio(PATCHES, len(default_blocks(4, method))) * PATCHES)
    stages = differ = 0
    for gone in (*(count for count in counts if count < most), most):
        plan = plan_of(gone, method)
        assert one.runs(plan)
        images = noise(1 + gone % 3, gone)
        wanted = network(images, [(plan, len(images))])
        differ += choices_that_differ(one(images.numpy(), [(plan, len(images))]), wanted)
        stages += len(images) * len(wanted.stages)
    # Rounding turns a choice between equal tokens now and then; noise has many of them.
    assert differ <= 0.03 * stages


@torch.inference_mode()
def test_a_block_may_be_left_out(network: ReducingViT, passes: Callable[[str], CompiledPasses]) -> None:
    for removed in ((0, 31, 20), (30, 0, 20), (1, 0, 0)):
        plan = ReductionPlan((1, 2, 3), removed, (7e-5,) * 3, "ppt")
        images = noise(2)
        found = passes("ppt")(images.numpy(), [(plan, 2)])
        assert choices_that_differ(found, network(images, [(plan, 2)])) == 0


@torch.inference_mode()
def test_a_mix_of_plans_gets_pytorchs_answers(
    network: ReducingViT, passes: Callable[[str], CompiledPasses]
) -> None:
    groups: list[Group] = [
        (plan_of(gone, "ward"), count) for gone, count in ((0, 3), (30, 1), (90, 4), (140, 1))
    ]
    images = noise(9)
    found = passes("ward")(images.numpy(), groups)
    wanted = network(images, groups)
    torch.testing.assert_close(torch.from_numpy(found.logits), wanted.logits, atol=1e-2, rtol=0)
    ours, theirs = (
        [(one.block, one.first + i) for one in stages for i in range(len(one.pruned))]
        for stages in (found.stages, wanted.stages)
    )
    assert ours == theirs


def test_what_cannot_be_converted_is_said(network: ReducingViT, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: DynamicPass, size: int) -> None:
        raise ValueError("not today")

    monkeypatch.setattr(DynamicPass, "exported", refuse)
    with pytest.raises(ConversionInvalid, match="OpenVINO cannot take over the pass: not today"):
        open_network(network, PPT, SIZE, ("float32",), 1)


@pytest.mark.parametrize(
    ("name", "kind"), [("eva02_tiny_patch14_336", "rotary"), ("beit_base_patch16_224", "relative")]
)
def test_positions_inside_attention_stay_with_pytorch_and_that_is_said(name: str, kind: str) -> None:
    network = reducing(small_network(name))
    assert network.geometry.positions == kind
    with pytest.raises(
        ConversionInvalid, match=f"stays with PyTorch: .* its {kind} positions inside attention"
    ):
        open_network(network, PPT, SIZE, ("float32",), 1)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["vit_medium_patch16_reg4_gap_256", "vit_base_patch16_siglip_224"])
@torch.inference_mode()
def test_average_and_attention_pooling_without_a_class_token_get_pytorchs_answers(name: str) -> None:
    network = reducing(randomise(small_network(name)))
    geometry, side = network.geometry, network.vit.patch_embed.img_size[0]
    plans = [
        plan_for_ratio(ratio, patches=geometry.patches, depth=geometry.depth, method="fuse")
        for ratio in (0.3, 0.6)
    ]
    (family,) = PlanFamily.all_of(plans)
    one = open_network(network, family, side, ("float32",), 1)["float32"]
    images = torch.randn(3, 3, side, side)
    for plan in (DENSE, *plans):
        found = torch.from_numpy(one(images.numpy(), [(plan, 3)]).logits)
        torch.testing.assert_close(found, network(images, [(plan, 3)]).logits, atol=1e-4, rtol=0)


def test_a_method_that_does_not_convert_is_refused_by_name(network: ReducingViT) -> None:
    with pytest.raises(
        ConversionInvalid, match="stays with PyTorch: no pass is converted with the reduction method 'local'"
    ):
        open_network(network, PlanFamily("local", (1, 2, 3)), SIZE, ("float32",), 1)


def test_without_openvino_it_says_how_to_get_it(
    network: ReducingViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConversionInvalid, match=r'needs OpenVINO: pip install "prunepool\[openvino\]"'):
        open_network(network, PPT, SIZE, ("float32",), 1)
