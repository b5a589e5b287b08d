"""A converted pass: how a batch is cut into runs, and that each image gets its own answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prunepool.backends.compiled_pass import AT_ONCE, Arrays, CompiledPass, CompiledPasses, Infer, StartedRun
from prunepool.backends.plan_family import PlanFamily
from prunepool.reduction.plan import DENSE, ReductionPlan
from prunepool.store import Geometry

GEOMETRY = Geometry(
    depth=4,
    width=1,
    heads=1,
    mlp_width=1,
    patch_size=(16, 16),
    patch_grid=(14, 14),
    prefix_tokens=1,
    classes=2,
)
FUSE = PlanFamily("fuse", (1, 2))
PLANS = [ReductionPlan((1, 2), (count, count), (0.0, 0.0), "fuse") for count in (5, 20, 60)]
#: Images of each plan, neighbours of one plan being one group.
GROUPS = st.lists(st.tuples(st.sampled_from([DENSE, *PLANS]), st.integers(1, 20)), min_size=1, max_size=6)


class Done:
    """A run that took no time."""

    def __init__(self, outputs: Arrays) -> None:
        self._outputs = outputs

    def done(self) -> bool:
        return True

    def outputs(self) -> Arrays:
        return self._outputs


def infer_of(runs: list[int]) -> Infer:
    """Its logits are an image's first pixel and the tokens that its plan leaves."""

    def infer(inputs: Arrays, when_done: Callable[[], object]) -> StartedRun:
        runs.append(len(inputs[0]))
        return Done(outputs(*inputs))

    def outputs(
        images: NDArray[np.generic], thresholds: NDArray[np.generic], *stay: NDArray[np.generic]
    ) -> list[NDArray[np.generic]]:
        assert images.flags.c_contiguous
        assert len(thresholds) == len(stay)
        count, last = len(images), len(stay[-1]) if stay else GEOMETRY.tokens
        logits = np.stack([images[:, 0, 0, 0], np.full(count, last, np.float32)], axis=1)
        before = [GEOMETRY.tokens, *map(len, stay)]
        stages: list[NDArray[np.generic]] = []
        for n, m in pairwise(before):
            stages += [np.zeros((count, m), np.int64), np.zeros((count, n - m), np.int64)]
            stages += [np.zeros((count, n - m), np.int64), np.zeros(count, np.bool_)]
            stages.append(np.asarray(images[:, 0, 0, 0], np.float32))
        return [logits, *stages]

    return infer


def a_pass(runs: list[int] | None = None, family: PlanFamily = FUSE) -> CompiledPass:
    return CompiledPass(infer_of([] if runs is None else runs), family, GEOMETRY)


def numbered(count: int) -> NDArray[np.float32]:
    """Images whose pixels are their number."""
    return np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1).repeat(3, 1)


def check_answers(run: Callable[..., object], groups: Sequence[tuple[ReductionPlan, int]]) -> None:
    """Each image has its own answer, by its own plan, and its own stages."""
    total = sum(count for _, count in groups)
    answers = run(numbered(total), groups)
    plans = [plan for plan, count in groups for _ in range(count)]
    left = [plan.tokens(GEOMETRY.tokens, 1)[-1] for plan in plans]
    logits, stages = answers  # type: ignore[misc]
    assert logits[:, 0].tolist() == list(range(total))
    assert logits[:, 1].tolist() == left
    assert [(stage.block, stage.first) for stage in stages] == sorted(
        (stage.block, stage.first) for stage in stages
    )
    for stage in stages:
        assert stage.variance.tolist() == [stage.first + i for i in range(len(stage.variance))]
    for block in (0, 1):
        covered = [
            stage.first + i for stage in stages if stage.block == block + 1 for i in range(len(stage.pruned))
        ]
        assert covered == [i for i, plan in enumerate(plans) if not plan.dense]


@given(groups=GROUPS)
def test_in_any_mix_each_image_gets_its_own_answer(groups: list[tuple[ReductionPlan, int]]) -> None:
    runs: list[int] = []
    check_answers(CompiledPasses([a_pass(runs)]), groups)
    assert max(runs) <= AT_ONCE, "memory is kept for so many"
    assert len(runs) == sum(-(-count // AT_ONCE) for _, count in groups)


def test_plans_of_two_methods_go_to_the_pass_of_their_own() -> None:
    ppt = PlanFamily("ppt", (1, 2))
    passes = CompiledPasses([a_pass(), a_pass(family=ppt)])
    theirs = ReductionPlan((1, 2), (7, 7), (0.1, 0.2), "ppt")
    check_answers(passes, [(DENSE, 3), (theirs, 2), (PLANS[0], 5), (theirs, 1)])
    assert not passes.runs(ReductionPlan((0,), (3,), (0.0,), "ppt"))


@pytest.mark.parametrize("plan", PLANS)
def test_thresholds_stand_at_their_blocks(plan: ReductionPlan) -> None:
    sparse = ReductionPlan((2,), (9,), (0.5,), "ppt")
    assert PlanFamily("ppt", (1, 2, 3)).thresholds(sparse) == (0.0, 0.5, 0.0)
    assert FUSE.thresholds(plan) == plan.thresholds
