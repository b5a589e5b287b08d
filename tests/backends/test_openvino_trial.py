"""The trial: OpenVINO runs what it answers as PyTorch does, and sooner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pytest
import torch
from torch import nn

from prunepool.backends.dynamic_pass import DynamicPass, PlanFamily
from prunepool.backends.openvino_pass import Arrays, OpenVinoPass, Streams
from prunepool.backends.openvino_trial import OpenVinoPasses, agrees, faster
from prunepool.errors import ConversionInvalid
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan, plan_for_ratio

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 4, "num_classes": 7}
SIZE = 224
KIND = PlanFamily("ppt", (1, 2, 3))
PLAN = plan_for_ratio(0.755, patches=196, depth=4)


@pytest.fixture(scope="module")
def network(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)


def streams(network: ReducingViT, change: Sequence[float] = (0.0,), width: int = 1) -> Streams:
    """Streams as PyTorch runs them, with something added to each image's logits."""
    one = DynamicPass(network, KIND)

    @torch.inference_mode()
    def infer(parts: Sequence[Arrays]) -> list[Arrays]:
        assert len(parts) == width
        return [run(arrays) for arrays in parts]

    def run(arrays: Arrays) -> Arrays:
        logits, *rest = one(*map(torch.from_numpy, arrays))
        wrong = torch.tensor([change[i % len(change)] for i in range(len(logits))])
        return [tensor.numpy() for tensor in (logits + wrong[:, None], *rest)]

    return Streams(width, infer)


def fake(network: ReducingViT, change: Sequence[float] = (0.0,)) -> OpenVinoPass:
    return OpenVinoPass([streams(network, change)], KIND, network.geometry)


def ticking(openvino_s: float) -> Callable[[], float]:
    """A clock that is looked at twice a run; OpenVINO and PyTorch take turns, PyTorch needs 2 s."""
    calls = count()

    def now() -> float:
        turn, after = divmod(next(calls), 2)
        return 10.0 * turn + after * (2.0 if turn % 2 else openvino_s)

    return now


@pytest.mark.parametrize(("openvino_s", "expected"), [(1, True), (2, False), (3, False)])
def test_what_is_faster_is_found(openvino_s: int, expected: bool, network: ReducingViT) -> None:
    found = faster(network, fake(network), PLAN, SIZE, images=1, clock=ticking(openvino_s))
    assert found is expected


@pytest.mark.parametrize("change", [0.1, float("nan")])
def test_other_answers_are_refused(change: float, network: ReducingViT) -> None:
    with pytest.raises(ConversionInvalid, match=r"removed are off by (0\.1|nan); at most 0\.001"):
        agrees(network, fake(network, [change]), PLAN, SIZE)


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("wrong", ["alone", "side by side"])
def test_lanes_that_are_wrong_do_not_hide_behind_others(wrong: str, width: int, network: ReducingViT) -> None:
    bad, good = [0.1], [0.0]
    alone, side_by_side = (bad, good) if wrong == "alone" else (good, bad)
    both = [streams(network, alone), streams(network, side_by_side, width)]
    with pytest.raises(ConversionInvalid, match=r"are off by 0\.1; at most 0\.001"):
        agrees(network, OpenVinoPass(both, KIND, network.geometry), PLAN, SIZE)


@pytest.mark.parametrize("plan", [PLAN, DENSE])
def test_one_choice_that_falls_the_other_way_is_no_reason_to_refuse(
    plan: ReductionPlan, network: ReducingViT
) -> None:
    assert agrees(network, fake(network, [0.5, 0.0, 0.5]), plan, SIZE)


def test_in_half_precision_it_may_be_as_far_from_float32_as_pytorch(
    random_vit: Callable[..., nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    vit = random_vit("vit_tiny_patch16_224", **SMALL).to(torch.bfloat16)
    half = ReducingViT(vit).requires_grad_(False)
    assert agrees(half, fake(half), PLAN, SIZE)
    assert not agrees(half, fake(half, [0.5]), PLAN, SIZE)
    assert "OpenVINO is not used: its logits are off from float32 by" in caplog.text
    assert half.dtype == torch.bfloat16


def test_larger_batches_than_pay_and_other_plans_are_left_to_pytorch(network: ReducingViT) -> None:
    passes = OpenVinoPasses([(fake(network), 1)])
    assert passes.get(PLAN, 1) is not None
    assert passes.get(PLAN, 2) is None
    assert passes.get(ReductionPlan((0,), (5,), (0.0,)), 1) is None
    assert OpenVinoPasses([(fake(network), 0)]).get(PLAN, 1) is None
