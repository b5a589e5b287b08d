"""Measuring many plans at once, with what they share computed once, and taking up where one stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from prunepool.errors import ModelError
from prunepool.lab.images import Crops
from prunepool.lab.journal import Journal, key_of, open_journal
from prunepool.lab.measure import measure
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.plan import DENSE, ReductionPlan, plan_for_ratio

Make = Callable[..., list[Crops]]

#: The first reducing block of most plans: they share the blocks before it.
BLOCKS = (3, 4, 5)
PLANS = [
    DENSE,
    plan_for_ratio(0.5, patches=36, depth=6, blocks=BLOCKS),
    plan_for_ratio(0.5, patches=36, depth=6, blocks=BLOCKS, method="fuse"),
    ReductionPlan((0, 5), (9, 9), (0.0, 0.0), "prune"),
    ReductionPlan((1, 4), (0, 12), (0.0, 0.0), "pool"),
]


@torch.inference_mode()
def directly(model: LoadedModel, batches: list[Crops], plan: ReductionPlan) -> ModelOutputs:
    """The same by whole forward passes."""
    parts = []
    for batch in batches:
        images = model.normalise(torch.from_numpy(batch.pixels))
        parts.append(ModelOutputs.from_logits(model(images, plan).logits, model(images).logits, batch.labels))
    return ModelOutputs.join(parts)


@pytest.mark.parametrize("plan", PLANS, ids=["dense", "ppt", "fuse", "from block 0", "late"])
def test_answers_are_those_of_a_whole_pass(small: LoadedModel, batches: Make, plan: ReductionPlan) -> None:
    found, expected = measure(small, batches(6), PLANS)[plan], directly(small, batches(6), plan)
    np.testing.assert_array_equal(found.predicted, expected.predicted)
    np.testing.assert_array_equal(found.place, expected.place)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-5)
    np.testing.assert_allclose(found.kl, expected.kl, atol=1e-5)


def test_plans_do_not_answer_alike(small: LoadedModel, batches: Make) -> None:
    found = measure(small, batches(6), PLANS)
    divergences = [float(answers.kl.mean()) for answers in found.values() if answers.kl is not None]
    assert divergences[0] == 0
    assert len({round(kl, 9) for kl in divergences}) == len(PLANS)


def test_what_plans_share_is_computed_once(
    small: LoadedModel, batches: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    block = type(small.vit)._block
    monkeypatch.setattr(
        type(small.vit), "_block", lambda self, index, *rest: calls.append(index) or block(self, index, *rest)
    )
    measure(small, batches(4), PLANS[:3])
    assert [calls.count(index) for index in range(3)] == [1, 1, 1]
    assert calls.count(5) == 3


def test_every_pair_of_image_and_plan_is_told(small: LoadedModel, batches: Make) -> None:
    told: list[int] = []
    measure(small, batches(6), [*PLANS, DENSE], advance=told.append)
    assert sum(told) == 6 * len(PLANS)


def test_what_was_measured_before_is_not_computed_again(
    small: LoadedModel, batches: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        before = measure(small, batches(6), PLANS, journal=journal)
    monkeypatch.delattr(type(small.vit), "run")
    with open_journal(path) as journal:
        again = measure(small, batches(6), PLANS, journal=journal)
    for plan in PLANS:
        np.testing.assert_array_equal(before[plan].kl, again[plan].kl)


def test_only_what_is_missing_is_computed(small: LoadedModel, batches: Make, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        measure(small, batches(4), PLANS[:1], journal=journal)
        assert len(journal) == 1
    with open_journal(path) as journal:
        measure(small, batches(8), PLANS[:2], journal=journal)
    assert len(path.read_bytes().splitlines()) == 4


def test_a_line_that_was_cut_short_is_measured_again(
    small: LoadedModel, batches: Make, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as journal:
        measure(small, batches(8), PLANS[:1], journal=journal)
    path.write_bytes(path.read_bytes()[:-20])
    with open_journal(path) as journal:
        assert len(journal) == 1
        measure(small, batches(8), PLANS[:1], journal=journal)
    with open_journal(path) as journal:
        assert len(journal) == 2


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.*journal\.jsonl: cannot be read and written"):
        open_journal(tmp_path / "nowhere" / "journal.jsonl").__enter__()


def test_a_key_is_of_plan_images_and_weights(small: LoadedModel) -> None:
    keys = {key_of(small, plan, crops) for plan in PLANS for crops in ("a", "b")}
    assert len(keys) == 2 * len(PLANS)


def test_a_journal_without_a_file_remembers(small: LoadedModel, batches: Make) -> None:
    journal = Journal(b"", None)
    measure(small, batches(4), PLANS, journal=journal)
    assert len(journal) == len(PLANS)
