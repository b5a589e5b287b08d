"""Runs: they learn, by labels or a teacher or both, and go on as if never interrupted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepool.errors import InvalidParameter, ModelError
from prunepool.lab.images import ImageSet
from prunepool.lab.training.recipe import Recipe
from prunepool.lab.training.report import Report
from prunepool.lab.training.run import CHECKPOINT, JOURNAL, train
from prunepool.lab.training.student import new_student
from prunepool.lab.training.trainer import Step, Trainer
from prunepool.lab.training.views import views
from prunepool.models.loaded_model import LoadedModel

Fresh = Callable[[], LoadedModel]
LABELS = ("cat", "dog", "fox", "owl")


def student(fresh: Fresh, seed: int = 1) -> LoadedModel:
    """Of the small model's kind, with other weights."""
    like = fresh().manifest
    return new_student(like.architecture, "student", LABELS, like, "cpu", seed)


def steps(trainer: Trainer, images: ImageSet) -> list[Step]:
    size = trainer.model.manifest.input_size
    return list(trainer.run(views(images, size, trainer.recipe, start=trainer.step, workers=1)))


def unlabelled(images: ImageSet) -> ImageSet:
    return dataclasses.replace(images, labels=None)


def in_folder(trainer: Trainer, images: ImageSet, folder: Path, **options: Any) -> list[Report]:
    told: list[Report] = []
    options = {"report": told.append, "advance": lambda count: None, "report_every": 1, **options}
    train(trainer, images, folder, **options)
    return told


def test_labels_alone_are_learned(fresh: Fresh, coloured: ImageSet) -> None:
    recipe = Recipe(steps=12, batch_size=4, lr=1e-3, smoothing=0.0, jitter=0.0)
    done = steps(Trainer(student(fresh), None, recipe), coloured)
    assert set(done[0].losses) == {"loss", "labels"}
    assert done[-1].losses["loss"] < 0.5 * done[0].losses["loss"]


def test_a_teacher_alone_is_learned_from(fresh: Fresh, coloured: ImageSet) -> None:
    recipe = Recipe(steps=10, batch_size=4, lr=1e-3, mix=0.5)
    done = steps(Trainer(student(fresh), fresh(), recipe), unlabelled(coloured))
    assert set(done[0].losses) == {"loss", "teacher", "features"}
    assert done[-1].losses["loss"] < 0.7 * done[0].losses["loss"]


def test_with_both_the_share_of_the_labels_counts(fresh: Fresh, coloured: ImageSet) -> None:
    recipe = Recipe(steps=1, batch_size=2, label_share=0.4, feature_weight=0.0)
    (done,) = steps(Trainer(student(fresh), fresh(), recipe), coloured)
    parts = done.losses
    assert parts["loss"] == pytest.approx(0.4 * parts["labels"] + 0.6 * parts["teacher"], rel=1e-4)


def test_its_own_teacher_teaches_nothing(fresh: Fresh, coloured: ImageSet) -> None:
    (done,) = steps(Trainer(fresh(), fresh(), Recipe(steps=1, batch_size=2)), unlabelled(coloured))
    assert done.losses["loss"] == pytest.approx(0, abs=1e-5)


def test_a_teacher_of_another_width_teaches_its_answers(fresh: Fresh, coloured: ImageSet) -> None:
    other = new_student("vit_small_patch16_224", "wide", LABELS, fresh().manifest, "cpu", 0)
    (done,) = steps(Trainer(fresh(), other, Recipe(steps=1, batch_size=2)), unlabelled(coloured))
    assert set(done.losses) == {"loss", "teacher"}


def test_tokens_are_removed_in_training(fresh: Fresh, coloured: ImageSet) -> None:
    recipe = Recipe(steps=8, batch_size=4, lr=1e-3, ratios=(0.755,))
    learner = Trainer(student(fresh), None, recipe)
    before = {name: value.clone() for name, value in learner.average.items()}
    done = steps(learner, coloured)
    assert {step.ratio for step in done} == {0.755}
    assert done[-1].losses["loss"] < done[0].losses["loss"]
    # The gradient comes through the reductions to the first block.
    assert (learner.average["blocks.0.attn.qkv.weight"] != before["blocks.0.attn.qkv.weight"]).any()


def test_a_ratio_is_drawn_for_each_batch(fresh: Fresh, coloured: ImageSet) -> None:
    recipe = Recipe(steps=8, batch_size=1, ratios=(0.0, 0.5), patches=9)
    done = steps(Trainer(fresh(), None, recipe), coloured)
    assert {step.ratio for step in done} == {0.0, 0.5}


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_an_interrupted_run_ends_with_the_same_weights(
    fresh: Fresh, coloured: ImageSet, tmp_path: Path, optimiser: Any
) -> None:
    recipe = Recipe(
        steps=3, batch_size=2, lr=1e-3, optimiser=optimiser, mix=0.5, ratios=(0.0, 0.5), patches=20
    )
    whole = Trainer(fresh(), fresh(), recipe)
    in_folder(whole, coloured, tmp_path / "whole")

    def interrupt(report: Report) -> None:
        if report.steps == 2:
            raise KeyboardInterrupt

    first = Trainer(fresh(), fresh(), recipe)
    with pytest.raises(KeyboardInterrupt):
        in_folder(first, coloured, tmp_path / "parts", report=interrupt)
    second = Trainer(fresh(), fresh(), recipe)
    in_folder(second, coloured, tmp_path / "parts")
    assert second.step == 3
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name
    assert len((tmp_path / "parts" / JOURNAL).read_bytes().splitlines()) == 3


def test_checkpoints_are_written_on_the_way(fresh: Fresh, coloured: ImageSet, tmp_path: Path) -> None:
    times = iter(range(0, 10_000, 200))
    seen: list[bool] = []
    in_folder(
        Trainer(fresh(), None, Recipe(steps=3, batch_size=1)),
        coloured,
        tmp_path,
        report=lambda told: seen.append((tmp_path / CHECKPOINT).exists()),
        checkpoint_seconds=300,
        clock=lambda: float(next(times)),
    )
    assert seen == [False, True, True]


def test_a_run_may_be_made_longer_and_nothing_else(fresh: Fresh, coloured: ImageSet, tmp_path: Path) -> None:
    recipe = Recipe(steps=1, batch_size=1)
    in_folder(Trainer(fresh(), None, recipe), coloured, tmp_path)
    longer = Trainer(fresh(), None, dataclasses.replace(recipe, steps=2))
    in_folder(longer, coloured, tmp_path)
    assert longer.step == 2
    other = Trainer(fresh(), None, dataclasses.replace(recipe, lr=1e-3))
    with pytest.raises(InvalidParameter, match="lr"):
        in_folder(other, coloured, tmp_path)
    with pytest.raises(InvalidParameter, match="teacher"):
        in_folder(Trainer(fresh(), fresh(), recipe), coloured, tmp_path)
    fewer = ImageSet(coloured.files[:8], coloured.labels)
    with pytest.raises(InvalidParameter, match="images"):
        in_folder(Trainer(fresh(), None, recipe), fewer, tmp_path)


def test_an_update_that_was_cut_short_is_not_kept(
    fresh: Fresh, coloured: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Trainer(fresh(), None, Recipe(steps=2, batch_size=1))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_folder(learner, coloured, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_what_is_no_checkpoint_is_named(fresh: Fresh, coloured: ImageSet, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(ModelError, match=CHECKPOINT):
        in_folder(Trainer(fresh(), None, Recipe(steps=1)), coloured, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run(fresh: Fresh, coloured: ImageSet, tmp_path: Path) -> None:
    broken = fresh()
    broken.vit.vit.head.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="--lr"):
        in_folder(Trainer(broken, None, Recipe(steps=1, batch_size=1)), coloured, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_teacher_of_other_classes_is_refused(fresh: Fresh) -> None:
    other = new_student("deit_tiny_patch16_224", "two", ("a", "b"), fresh().manifest, "cpu", 0)
    with pytest.raises(InvalidParameter, match="2 classes"):
        Trainer(fresh(), other, Recipe())


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("lr", -1.0), ("ratios", (1.0,)), ("ratios", ()), ("mix", 2.0), ("optimiser", "sgd")],
)
def test_a_recipe_that_cannot_be_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidParameter, match=name):
        Recipe(**{name: value})  # type: ignore[arg-type]


def test_more_patches_than_there_are_are_refused(fresh: Fresh) -> None:
    with pytest.raises(InvalidParameter, match="from 1 to 36"):
        Trainer(fresh(), None, Recipe(patches=37))
