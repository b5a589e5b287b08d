"""A calibration from images to a profile that the dial follows, and the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunepool import cli
from prunepool.errors import InvalidParameter
from prunepool.lab.calibrate import Calibrated, calibrate
from prunepool.lab.images import Crops
from prunepool.lab.journal import Journal
from prunepool.models.dial import ModelDial, plan_of
from prunepool.models.loaded_model import LoadedModel
from prunepool.store import Manifest, ModelStore

Make = Callable[..., list[Crops]]
RATIOS = (0.3, 0.5, 0.755)


def calibrated(model: LoadedModel, choose: list[Crops], report: list[Crops], **options: Any) -> Calibrated:
    options = {"journal": Journal(b"", None), "ratios": RATIOS, "speed_rounds": 0, **options}
    return calibrate(model, choose, report, begin=lambda name, total: lambda count: None, seed=0, **options)


@pytest.fixture(scope="module")
def result(small: LoadedModel, batches: Make) -> Calibrated:
    return calibrated(small, batches(8), batches(8, seed=1))


def with_profile(model: LoadedModel, result: Calibrated) -> Manifest:
    return model.manifest.model_copy(update={"profile": tuple(result.points)})


def test_there_is_a_point_for_each_cost_and_one_for_the_dense_model(result: Calibrated) -> None:
    assert result.points[0].ratio == 0
    assert len(result.points) == 1 + len(RATIOS)
    assert len(result.before) == len(result.after) == 1 + len(RATIOS)


def test_the_dial_goes_through_the_points(small: LoadedModel, result: Calibrated) -> None:
    dial = ModelDial(with_profile(small, result), small.geometry)
    for point in result.points[1:]:
        assert dial.plan(point.ratio) == plan_of(point)
        assert dial.gmacs(point.ratio) == pytest.approx(point.gmacs, abs=1e-6)
    assert dial.profile == tuple(result.points)


def test_more_reduction_never_costs_more(small: LoadedModel, result: Calibrated) -> None:
    dial = ModelDial(with_profile(small, result), small.geometry)
    costs = [dial.gmacs(dial.max_ratio * i / 500) for i in range(501)]
    assert costs == sorted(costs, reverse=True)


def test_no_more_is_applied_than_asked(small: LoadedModel, result: Calibrated) -> None:
    dial = ModelDial(with_profile(small, result), small.geometry)
    assert all(dial.applied(i / 500) <= i / 500 for i in range(int(500 * dial.max_ratio)))


def test_what_is_chosen_costs_no_more_than_the_paper_at_its_ratio(result: Calibrated) -> None:
    for before, after in zip(result.before, result.after, strict=True):
        assert after.gmacs <= before.gmacs + 1e-9


def test_figures_are_of_the_images_to_report_on(small: LoadedModel, batches: Make) -> None:
    found = calibrated(small, batches(8), batches(4, seed=1), ratios=(0.5,))
    assert [point.images for point in found.points] == [4, 4]


def test_without_labels_the_loss_is_of_agreement(small: LoadedModel, batches: Make) -> None:
    unlabelled = calibrated(
        small, batches(8, labels=False), batches(8, labels=False, seed=1), ratios=(0.755,)
    )
    point = unlabelled.points[-1]
    assert (point.top1, point.top5) == (None, None)
    assert point.drop == pytest.approx(100 * (1 - (point.agreement or 0)))


def test_labels_do_not_decide(small: LoadedModel, batches: Make, result: Calibrated) -> None:
    unlabelled = calibrated(small, batches(8, labels=False), batches(8, labels=False, seed=1))
    assert [c.plan for c in unlabelled.choices] == [c.plan for c in result.choices]


def test_with_the_split_kept_the_dial_stays_the_papers(small: LoadedModel, batches: Make) -> None:
    found = calibrated(small, batches(8), batches(8, seed=1), keep="split")
    dial = ModelDial(with_profile(small, found), small.geometry)
    for ratio in RATIOS:
        assert dial.plan(ratio).removed == small.plan(ratio).removed
        assert dial.plan(ratio).blocks == small.plan(ratio).blocks


def test_with_the_plans_kept_they_are_only_measured(store: ModelStore, photos: Path) -> None:
    assert run(store, photos, "--keep", "plans") == 0
    profile = store.open("small").manifest.profile
    assert profile is not None
    assert [point.images for point in profile] == [24, 24, 24]
    assert [(point.method, point.blocks) for point in profile[1:]] == [("ppt", (1, 3, 4))] * 2


def test_speed_is_measured_where_it_was_asked_for(small: LoadedModel, batches: Make) -> None:
    found = calibrated(small, batches(4), batches(4), ratios=(0.5,), speed_rounds=1)
    speed = found.points[1].speed
    assert speed is not None
    assert speed.speedup > 0
    assert (speed.device, speed.dtype, speed.batch) == ("cpu", "float32", 32)


def test_a_ratio_that_the_paper_cannot_do_is_refused(small: LoadedModel, batches: Make) -> None:
    with pytest.raises(InvalidParameter, match=r"ratios must be above 0 and at most 0\.8[0-9]+; got 0\.95"):
        calibrated(small, batches(4), batches(4), ratios=(0.5, 0.95))


@pytest.fixture
def store(small_store: Path, tmp_path: Path) -> ModelStore:
    """A copy that may be changed."""
    return ModelStore(shutil.copytree(small_store, tmp_path / "store"))


def run(store: ModelStore, photos: Path, *arguments: str) -> int:
    common = ("calibrate", "small", "--model-store", str(store.root), "--images", str(photos))
    return cli.run([*common, "--ratios", "0.5,0.755", "--batch-size", "4", "--speed-rounds", "0", *arguments])


def test_the_command_writes_the_profile(
    store: ModelStore, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = str(photos / "labels.csv")
    files = ("--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png"))
    assert run(store, photos, "--labels", labels, *files) == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    profile = store.open("small").manifest.profile
    assert profile is not None
    assert [point.images for point in profile] == [6, 6, 6]
    assert "PPT 0.755" in capsys.readouterr().out
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["chosen_on"], document["measured_on"]) == (6, 6)
    assert [row["figures"]["agreement"] for row in document["rows"]] == pytest.approx(
        [point.agreement for point in profile], abs=1e-4
    )


def test_few_images_are_warned_of_and_by_default_two_methods_are_tried(
    store: ModelStore, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, photos, "--dry-run") == 0
    out, err = capsys.readouterr()
    assert "prunepool: warning: 24 images are few: " in err
    assert "200 or more" in err
    tried = [line for line in out.splitlines() if line.startswith("tried ")]
    assert tried
    assert all("PPT" in line or "fuse" in line for line in tried)
    assert run(store, photos, "--dry-run", "--methods", "ppt,pool") == 0
    assert any("pool" in line for line in capsys.readouterr().out.splitlines() if line.startswith("tried "))


def test_the_same_seed_gives_the_same_profile(store: ModelStore, photos: Path) -> None:
    found = []
    for _ in range(2):
        assert run(store, photos, "--seed", "3") == 0
        found.append(store.open("small").manifest.profile)
    assert found[0] == found[1]


def test_a_dry_run_changes_nothing(store: ModelStore, photos: Path) -> None:
    assert run(store, photos, "--dry-run") == 0
    assert store.open("small").manifest.profile is None


def test_a_packaged_model_is_calibrated_as_a_copy(
    store: ModelStore,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("PRUNEPOOL_MODEL_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("prunepool.store.locations.PACKAGED", store.root)
    call = ("calibrate", "small", "--images", str(photos), "--ratios", "0.5", "--speed-rounds", "0")
    assert cli.run(call) == 0
    copy = tmp_path / "data" / "prunepool" / "models" / "small"
    assert (
        f"the profile of small is written: 2 points; it is a copy now, in {copy}" in capsys.readouterr().out
    )
    assert [path.name for path in copy.parent.iterdir()] == ["small"], "no journal is left"
    assert sorted(path.name for path in (store.root / "small").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]
    assert store.open("small").manifest.profile is None


def test_an_interrupted_calibration_is_taken_up(
    store: ModelStore, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = "prunepool.models.vit.ReducingViT"
    computed = {"runs": 0}
    from prunepool.models.vit import ReducingViT

    whole = ReducingViT.run

    def counting(self: Any, *arguments: Any) -> Any:
        computed["runs"] += 1
        if computed["runs"] == 40:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(f"{vit}.run", counting)
    assert run(store, photos) == 130
    done = len((store.root / "small" / "calibration.jsonl").read_bytes().splitlines())
    assert done > 20
    assert run(store, photos) == 0
    interrupted = computed["runs"]
    assert not (store.root / "small" / "calibration.jsonl").exists()
    computed["runs"] = 1000
    assert run(store, photos) == 0
    assert interrupted < computed["runs"] - 1000 + 40


def test_a_profile_can_be_timed_on_another_machine_without_images(
    store: ModelStore, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(store, photos) == 0
    before = store.open("small").manifest.profile
    time = [
        "calibrate",
        "small",
        "--model-store",
        str(store.root),
        "--keep",
        "profile",
        "--speed-rounds",
        "1",
    ]
    assert cli.run(time) == 0
    after = store.open("small").manifest.profile
    assert before is not None
    assert after is not None
    speeds = [point.speed for point in after]
    assert [speed if speed is None else (speed.device, speed.dtype) for speed in speeds] == [
        None,
        ("cpu", "float32"),
        ("cpu", "float32"),
    ]
    assert tuple(point.model_copy(update={"speed": None}) for point in after) == before
    assert "cpu, float32, batch 32" in capsys.readouterr().out


def test_images_to_report_on_can_be_others(store: ModelStore, photos: Path) -> None:
    others = ("--report-images", str(photos / "classes"), "--report-labels", "folders")
    assert run(store, photos, *others) == 0
    profile = store.open("small").manifest.profile
    assert profile is not None
    assert profile[1].images == 12
    assert profile[1].top1 is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report-labels", "x.csv"], "--report-labels needs --report-images"),
        (["--labels", "nope.csv"], "labels must be a CSV that can be read"),
        (["--ratios", "0.95"], "ratios must be above 0 and at most"),
        (["--methods", "magic"], "method must be ppt, prune"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(
    store: ModelStore, photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(store, photos, *arguments) == 2
    assert message in capsys.readouterr().err
    assert store.open("small").manifest.profile is None


def test_the_papers_own_setting_is_not_calibrated(
    store: ModelStore, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.root / "small" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reduction": {"method": "ppt-paper"}}))
    assert run(store, photos) == 2
    assert "reduction.method of small must be another one" in capsys.readouterr().err
    assert run(store, photos, "--keep", "plans") == 0
    assert store.open("small").manifest.profile is not None
