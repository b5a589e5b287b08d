"""All methods side by side: each at the same costs, or said to reach none."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch

from prunepool.errors import InvalidParameter
from prunepool.lab.accuracy_row import DENSE_ROW
from prunepool.lab.all_methods import SHARES, main, plan_within, settings_at, settings_by, time_steps
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE
from prunepool.store import Geometry

TINY = Geometry(
    depth=12,
    width=192,
    heads=3,
    mlp_width=768,
    patch_size=(16, 16),
    patch_grid=(14, 14),
    prefix_tokens=1,
    classes=1000,
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gmacs", [0.95, 0.8, 0.69, 0.63, 0.545])
def test_a_plan_costs_no_more_than_allowed_and_little_less(method: str, gmacs: float) -> None:
    plan = plan_within(method, gmacs, TINY)
    assert plan is not None, "where a method's own blocks cannot save as much, more blocks can"
    assert plan.method == method
    assert gmacs - 0.025 < TINY.gmacs(plan) <= gmacs


def test_no_method_reaches_what_no_blocks_can_save() -> None:
    assert plan_within("ward", 0.2, TINY) is None


def test_diffrate_removes_in_the_proportions_that_it_published() -> None:
    plan = plan_within("diffrate", 0.8, TINY)
    assert plan is not None
    removed = dict(zip(plan.blocks, plan.removed, strict=True))
    assert 0 not in removed
    assert removed[3] > removed[1] > removed[10]


def test_the_dense_model_comes_first_then_each_method_at_each_cost() -> None:
    settings = settings_at(["ward", "ppt"], TINY, SHARES)
    assert [s.method for s in settings] == [DENSE_ROW] + ["ward"] * 5 + ["ppt"] * 5
    costs = [TINY.gmacs(s.plan) / TINY.gmacs(DENSE) for s in settings[1:]]
    assert all(cost <= share for cost, share in zip(costs, SHARES * 2, strict=True))


def test_each_method_by_one_plan() -> None:
    dense, ward, fuse = settings_by("3-10:160:0.7975", ["ward", "fuse"], TINY)
    assert dense.method == DENSE_ROW
    assert ward.plan.removed == fuse.plan.removed
    assert (sum(ward.plan.removed), ward.plan.blocks) == (160, tuple(range(3, 11)))
    assert 0.78 < TINY.gmacs(ward.plan) <= 0.7975


@pytest.mark.parametrize("plans", ["3-10:160", "10-11:190:0.5"])
def test_a_plan_that_cannot_be_is_refused(plans: str) -> None:
    with pytest.raises(InvalidParameter, match=plans):
        settings_by(plans, ["ward"], TINY)


def test_a_step_is_timed_on_what_images_give_it(small: LoadedModel) -> None:
    times = time_steps(small, ["ward", "fuse"], torch.randn(2, 3, 96, 96))
    assert list(times) == ["ward", "fuse"]
    assert all(time.rounds == 15 and time.median > 0 for time in times.values())


def test_the_table_and_the_file(
    small: LoadedModel, small_store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        "small",
        photos,
        labels=str(photos / "labels.csv"),
        model_store=small_store,
        methods="ward,topk",
        every_second=True,
        json=tmp_path / "all.json",
        plot=tmp_path / "all.png",
    )
    assert "Ward (ours)" in capsys.readouterr().out
    document = orjson.loads((tmp_path / "all.json").read_bytes())
    assert document["rows"][0]["method"] == DENSE_ROW
    assert {row["figures"]["images"] for row in document["rows"]} == {6}
    assert set(document["steps"]) == {"ward", "topk"}
    assert (tmp_path / "all.png").stat().st_size > 1000
