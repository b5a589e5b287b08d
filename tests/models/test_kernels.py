"""Kernels for a single image: the plain pass's answers, compiled once, never while requests are served."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunepool.batching.types import Batch, Dial, Request, Work
from prunepool.errors import InvalidParameter, KernelsInvalid
from prunepool.models.kernels import KernelFolder, Kernels
from prunepool.models.model import Model
from prunepool.models.runner import TorchRunner
from prunepool.models.trial import worthwhile
from prunepool.models.vit import Forward, ReducingViT
from prunepool.ppt.plan import DENSE, ReductionPlan, plan_for_ratio

SMALL = {"embed_dim": 32, "num_heads": 2, "depth": 4, "num_classes": 7}
SIZE = 224
PLAN = plan_for_ratio(0.755, patches=196, depth=4)
OTHER = plan_for_ratio(0.5, patches=196, depth=4)


@pytest.fixture(scope="module")
def network(random_vit: Callable[..., nn.Module]) -> ReducingViT:
    return ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, network: ReducingViT) -> Path:
    """A folder with the small network's kernels for one plan."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    path = tmp_path_factory.mktemp("kernels") / "made when needed"
    KernelFolder(path).kernels(network, PLAN, SIZE)
    return path


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which none is to be found."""
    from torch._inductor.cpp_builder import cpp_compiler_search

    monkeypatch.setenv("PATH", "")
    cpp_compiler_search.cache_clear()
    yield
    cpp_compiler_search.cache_clear()


def images(number: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(1, 3, SIZE, SIZE, generator=generator) for _ in range(number))


def assert_same(found: Forward, wanted: Forward) -> None:
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-4, rtol=0)
    assert len(found.stages) == len(wanted.stages)
    for ours, theirs in zip(found.stages, wanted.stages, strict=True):
        assert (ours.block, ours.first) == (theirs.block, theirs.first)
        assert torch.equal(ours.pruned, theirs.pruned)
        assert all(map(torch.equal, ours.departure, theirs.departure))
        torch.testing.assert_close(ours.variance, theirs.variance)


@pytest.mark.usefixtures("no_compiler")
@torch.inference_mode()
def test_answers_and_stages_are_those_of_the_plain_pass(network: ReducingViT, kept: Path) -> None:
    kernels = KernelFolder(kept).kernels(network, PLAN, SIZE)
    for image in images(5):
        assert_same(kernels(image), network(image, [(PLAN, 1)]))
        pixels_last = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        assert_same(kernels(pixels_last), network(image, [(PLAN, 1)]))


@pytest.mark.usefixtures("no_compiler")
def test_decoded_pixels_get_the_plain_answer_through_them(
    network: ReducingViT, kept: Path, tiny: Model
) -> None:
    model = Model(network, tiny.manifest)
    assert model.plan(0.755) == PLAN
    kernels = KernelFolder(kept).kernels(network, PLAN, SIZE)
    runner = TorchRunner(lambda: model, max_batch_size=1, kernels=lambda _: {PLAN: kernels})
    runner.warm_up()
    plain = TorchRunner(lambda: model, max_batch_size=1)
    ((found,), (wanted,)) = (answers(one, 0.755) for one in (runner, plain))
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-4)
    assert (found.tokens, found.pruned, found.pooled) == (wanted.tokens, wanted.pruned, wanted.pooled)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("other", ["plan", "number format", "weights"])
def test_without_a_compiler_it_says_what_is_missing(
    other: str, random_vit: Callable[..., nn.Module], kept: Path
) -> None:
    """Each plan, number format and set of weights has kernels of its own."""
    network = ReducingViT(random_vit("vit_tiny_patch16_224", **SMALL)).requires_grad_(False)
    if other == "number format":
        network.to(torch.bfloat16)
    if other == "weights":
        network.vit.head.bias += 1
    with pytest.raises(KernelsInvalid, match=r"no C\+\+ compiler to make them: install g\+\+"):
        KernelFolder(kept).kernels(network, OTHER if other == "plan" else PLAN, SIZE)
    assert len(list(kept.iterdir())) == 1


@pytest.mark.usefixtures("no_compiler")
def test_a_broken_file_is_named(network: ReducingViT, kept: Path, tmp_path: Path) -> None:
    (file,) = kept.iterdir()
    (tmp_path / file.name).write_bytes(b"broken")
    with pytest.raises(KernelsInvalid, match=rf"{file.name} cannot be loaded, delete it"):
        KernelFolder(tmp_path).kernels(network, PLAN, SIZE)


def test_a_folder_that_cannot_be_written_to_is_named(network: ReducingViT, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidParameter, match=r"compiled_folder must be a folder that can be written to"):
        KernelFolder(tmp_path / "file").kernels(network, PLAN, SIZE)


def fake(network: ReducingViT, plan: ReductionPlan, change: Callable[[], float] = lambda: 0.0) -> Kernels:
    """Kernels that are the plain pass, with something added to its logits."""

    def run(image: Tensor) -> list[Tensor]:
        logits, stages = network(image, [(plan, 1)])
        return [logits + change(), *(t for s in stages for t in (*s.departure, s.pruned, s.variance))]

    return Kernels(run, [b for b, r in zip(plan.blocks, plan.removed, strict=True) if r], {})


def ticking(compiled_s: float) -> Callable[[], float]:
    """A clock that is looked at twice a run; the compiled and the plain pass take turns, the plain one 2 s."""
    calls = count()

    def now() -> float:
        turn, after = divmod(next(calls), 2)
        return 10.0 * turn + after * (2.0 if turn % 2 else compiled_s)

    return now


@pytest.mark.parametrize(("compiled_s", "expected"), [(1, True), (2, False), (3, False)])
def test_kernels_are_used_where_they_are_faster(
    compiled_s: int, expected: bool, network: ReducingViT
) -> None:
    assert worthwhile(network, fake(network, PLAN), PLAN, SIZE, clock=ticking(compiled_s)) is expected


@pytest.mark.parametrize("change", [0.1, float("nan")])
def test_kernels_that_answer_otherwise_are_refused(change: float, network: ReducingViT) -> None:
    with pytest.raises(KernelsInvalid, match=r"logits that are off by (0\.1|nan)"):
        worthwhile(network, fake(network, PLAN, lambda: change), PLAN, SIZE)


def test_one_choice_that_falls_the_other_way_is_no_reason_to_refuse(network: ReducingViT) -> None:
    changes = iter([0.5, 0.0, 0.5])
    kernels = fake(network, PLAN, lambda: next(changes, 0.0))
    assert worthwhile(network, kernels, PLAN, SIZE, clock=ticking(1)) is True


def test_only_a_single_image_of_that_plan_runs_in_them(tiny: Model) -> None:
    used: list[ReductionPlan] = []

    class Noted(Kernels):
        def __call__(self, image: Tensor) -> Forward:
            used.append(plan)
            return super().__call__(image)

    plan = tiny.plan(0.755)
    kernels = fake(tiny.vit, plan)
    kernels.__class__ = Noted
    runner = TorchRunner(lambda: tiny, max_batch_size=2, kernels=lambda model: {plan: kernels})
    runner.warm_up()
    plain = TorchRunner(lambda: tiny, max_batch_size=2)
    for ratios, times in (((0.755,), 1), ((0.755, 0.755), 0), ((0.5,), 0), ((0.0,), 0)):
        used.clear()
        found, wanted = (answers(one, *ratios) for one in (runner, plain))
        assert len(used) == times
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)
            assert (ours.tokens, ours.pruned, ours.pooled) == (theirs.tokens, theirs.pruned, theirs.pooled)
            # Other rounding may turn a choice between equal tokens, in noise, but not how many there are.
            assert ours.token_map is not None
            assert len(ours.token_map.tokens) == len(theirs.token_map.tokens)


def test_dense_has_kernels_too(tiny: Model) -> None:
    runner = TorchRunner(
        lambda: tiny, max_batch_size=1, kernels=lambda model: {DENSE: fake(model.vit, DENSE)}
    )
    runner.warm_up()
    assert answers(runner, 0.0)[0].tokens == (197,)


def answers(runner: TorchRunner, *ratios: float) -> list[Any]:
    rng = np.random.default_rng(3)
    pixels = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in ratios]
    batch = Batch(
        tuple(
            Work(Request(own, Dial(ratio, ratio), 0.0, explain=True), ratio, "requested")
            for own, ratio in zip(pixels, ratios, strict=True)
        ),
        0.0,
    )
    return list(runner.run(batch, runner.prepare(batch)))
