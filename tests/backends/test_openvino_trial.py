"""The trial: OpenVINO runs what it answers as PyTorch does, and faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunepool.backends.dynamic_pass import DynamicPass, PlanFamily
from prunepool.backends.openvino_pass import Arrays, OpenVinoPass, Streams
from prunepool.backends.openvino_trial import (
    OpenVinoPasses,
    as_close,
    faster,
    passes_for,
    split_plan,
    verify,
)
from prunepool.backends.photos import sample_photos
from prunepool.errors import ConversionInvalid, InvalidParameter, PrunepoolError
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, ReductionPlan, plan_for_ratio

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 4, "num_classes": 7}
SIZE = 224
FAMILY = PlanFamily("ppt", (1, 2, 3))
PLAN = plan_for_ratio(0.755, patches=196, depth=4)


@pytest.fixture(scope="module")
def network(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Eight photos as a network sees them, float32 [8, 3, 224, 224]."""
    return torch.from_numpy(sample_photos(SIZE)).permute(0, 3, 1, 2) / 127.5 - 1


def streams(
    network: ReducingViT,
    change: Sequence[float] = (0.0,),
    width: int = 1,
    *,
    where: Callable[[Sequence[Tensor]], Tensor] | None = None,
) -> Streams:
    """Streams as PyTorch runs them, with something added to each image's logits, everywhere or where asked."""
    one = DynamicPass(network, FAMILY)

    @torch.inference_mode()
    def infer(parts: Sequence[Arrays]) -> list[Arrays]:
        assert len(parts) == width
        return [run(arrays) for arrays in parts]

    def run(arrays: Arrays) -> Arrays:
        logits, *rest = one(*map(torch.from_numpy, arrays))
        wrong = torch.tensor([change[i % len(change)] for i in range(len(logits))])
        if where is not None:
            wrong = wrong * where(rest)
        return [tensor.numpy() for tensor in (logits + wrong[:, None], *rest)]

    return Streams(width, infer)


def fake(network: ReducingViT, change: Sequence[float] = (0.0,), **options: Any) -> OpenVinoPass:
    return OpenVinoPass([streams(network, change, **options)], FAMILY, network.geometry)


def ticking(openvino_s: float) -> Callable[[], float]:
    """A clock that is looked at twice a run; OpenVINO and PyTorch take turns, PyTorch needs 2 s."""
    calls = count()

    def now() -> float:
        turn, after = divmod(next(calls), 2)
        return 10.0 * turn + after * (2.0 if turn % 2 else openvino_s)

    return now


@pytest.mark.parametrize(("openvino_s", "expected"), [(1, True), (2, False), (3, False)])
def test_what_is_faster_is_found(
    openvino_s: int, expected: bool, network: ReducingViT, photos: Tensor
) -> None:
    found = faster(network, fake(network), PLAN, photos[:1], clock=ticking(openvino_s))
    assert found is expected


def test_the_same_answers_pass(network: ReducingViT, photos: Tensor) -> None:
    verify(network, fake(network), [DENSE, PLAN], photos)


@pytest.mark.parametrize("change", [0.1, float("nan")])
def test_other_answers_are_refused(change: float, network: ReducingViT, photos: Tensor) -> None:
    with pytest.raises(ConversionInvalid, match=r"removed are off by (0\.1|nan); at most 0\.001"):
        verify(network, fake(network, [change]), [PLAN], photos)


@pytest.mark.parametrize("image", range(8))
def test_every_photo_has_to_agree(image: int, network: ReducingViT, photos: Tensor) -> None:
    change = [0.1 * (i == image) for i in range(8)]
    with pytest.raises(ConversionInvalid, match=r"are off by 0\.1; at most 0\.001"):
        verify(network, fake(network, change), [PLAN], photos)


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("wrong", ["alone", "side by side"])
def test_streams_that_are_wrong_do_not_hide_behind_others(
    wrong: str, width: int, network: ReducingViT, photos: Tensor
) -> None:
    bad, good = [0.1], [0.0]
    alone, side_by_side = (bad, good) if wrong == "alone" else (good, bad)
    both = [streams(network, alone), streams(network, side_by_side, width)]
    with pytest.raises(ConversionInvalid, match=r"are off by 0\.1; at most 0\.001"):
        verify(network, OpenVinoPass(both, FAMILY, network.geometry), [PLAN], photos)


def test_the_photos_take_both_branches_at_every_stage(network: ReducingViT, photos: Tensor) -> None:
    plan = split_plan(network, PLAN, photos)
    with torch.inference_mode():
        stages = network(photos, [(plan, len(photos))]).stages
    assert {stage.block for stage in stages} == {1, 2, 3}
    for block in (1, 2, 3):
        pruned = torch.cat([stage.pruned for stage in stages if stage.block == block])
        assert pruned.sum() == 4


@pytest.mark.parametrize("branch", ["pruned", "pooled"])
def test_a_branch_that_is_wrong_is_found(branch: str, network: ReducingViT, photos: Tensor) -> None:
    """Five tensors a stage after the logits, the fourth of which says which images were pruned there."""

    def where(rest: Sequence[Tensor]) -> Tensor:
        return rest[3] if branch == "pruned" else ~rest[3]

    plan = split_plan(network, PLAN, photos)
    with pytest.raises(ConversionInvalid, match=r"are off by 0\.1; at most 0\.001"):
        verify(network, fake(network, [0.1], where=where), [plan], photos)


def test_in_half_precision_it_may_be_as_far_from_float32_as_pytorch(
    random_vit: Callable[..., nn.Module],
    network: ReducingViT,
    photos: Tensor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vit = random_vit("vit_tiny_patch16_224", **SMALL).to(torch.bfloat16)
    half = ReducingViT(vit).requires_grad_(False)
    images = photos.to(torch.bfloat16)
    assert as_close(half, network, fake(half), PLAN, images)
    assert not as_close(half, network, fake(half, [0.5]), PLAN, images)
    assert "OpenVINO is not used: its logits are off from float32 by" in caplog.text


def test_larger_batches_than_pay_and_other_plans_are_left_to_pytorch(network: ReducingViT) -> None:
    passes = OpenVinoPasses([(fake(network), 1)])
    assert passes.get(PLAN, 1) is not None
    assert passes.get(PLAN, 2) is None
    assert passes.get(ReductionPlan((0,), (5,), (0.0,)), 1) is None
    assert OpenVinoPasses([(fake(network), 0)]).get(PLAN, 1) is None


class FakeCache:
    """A cache of conversions that are right."""

    def get(
        self, network: ReducingViT, family: PlanFamily, size: int, *, dtype: torch.dtype | None = None
    ) -> OpenVinoPass:
        return OpenVinoPass([_as_pytorch(network, family)], family, network.geometry)


def _as_pytorch(network: ReducingViT, family: PlanFamily) -> Streams:
    one = DynamicPass(network, family)

    @torch.inference_mode()
    def infer(parts: Sequence[Arrays]) -> list[Arrays]:
        return [[tensor.numpy() for tensor in one(*map(torch.from_numpy, arrays))] for arrays in parts]

    return Streams(1, infer)


@pytest.mark.parametrize("most", [0, 1, 4])
def test_a_decision_holds_without_another_trial(
    most: int, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[int] = []

    def faster(*args: Any, **_: Any) -> bool:
        trials.append(len(args[3]))
        return len(args[3]) <= most

    monkeypatch.setattr("prunepool.backends.openvino_trial.faster", faster)
    cache: Any = FakeCache()
    decisions: dict[str, Any] = {}
    first = passes_for(tiny, cache, 4, decisions)
    assert decisions == {"openvino": {"ppt": most}}
    assert trials == ([1] if most == 0 else [1, 4])
    again = passes_for(tiny, cache, 4, decisions)
    assert len(trials) == (1 if most == 0 else 2), "tried once in all"
    for passes in (first, again):
        found = [passes.get(tiny.plan(0.5), images) is not None for images in (1, 4)]
        assert found == [most >= 1, most >= 4]


@pytest.mark.parametrize(
    "error", [ConversionInvalid("not today"), InvalidParameter("cpu_openvino_folder", "x", "a folder")]
)
def test_a_process_that_cannot_have_a_pass_that_one_before_it_had_serves_by_pytorch(
    error: PrunepoolError, tiny: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """A successor has to come up, whatever became of the folder; a first start says what is wrong and ends."""

    class Gone(FakeCache):
        def get(self, *args: Any, **options: Any) -> OpenVinoPass:
            raise error

    cache: Any = Gone()
    decisions: dict[str, Any] = {"openvino": {"ppt": 4}}
    assert passes_for(tiny, cache, 4, decisions).get(tiny.plan(0.5), 1) is None
    assert caplog.messages == [f"OpenVINO is not used, PyTorch runs all batches: {error.detail}"]
    with pytest.raises(type(error)):
        passes_for(tiny, cache, 4, {})
