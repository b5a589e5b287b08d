"""Which settings an evaluation measures, at which cost, and the command."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool import cli
from prunepool.cli.streams import NOBODY_READS, OutputLost
from prunepool.errors import InvalidParameter
from prunepool.lab.evaluate import DIAL, cheapest_within, evaluate, report, settings_of
from prunepool.lab.images import Crops
from prunepool.models.loaded_model import LoadedModel
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, ReductionPlan, plan_for_ratio


def test_the_dense_model_comes_first_and_once(small: LoadedModel) -> None:
    settings = settings_of(small, [DIAL, "fuse"], [0.0, 0.5])
    assert [s.method for s in settings] == ["dense", "dial", "fuse"]
    assert settings[0].plan == DENSE
    assert settings[1].plan == small.plan(0.5)


@pytest.mark.parametrize("method", METHODS)
def test_at_equal_cost_no_method_costs_more_than_ppt(small: LoadedModel, method: str) -> None:
    ratios = (0.3, 0.5, 0.755)
    settings = settings_of(small, [method], ratios, match_gmacs=True)[1:]
    for ratio, setting in zip(ratios, settings, strict=True):
        limit = small.geometry.gmacs(plan_for_ratio(ratio, patches=36, depth=6))
        fewer = plan_for_ratio(
            (sum(setting.plan.removed) - 1) / 36, patches=36, depth=6, method=setting.plan.method
        )
        assert small.geometry.gmacs(setting.plan) <= limit + 1e-9 < small.geometry.gmacs(fewer) + 2e-9


def test_a_method_that_does_not_exist_is_refused(small: LoadedModel) -> None:
    with pytest.raises(InvalidParameter, match="method must be dial, ppt, prune"):
        settings_of(small, ["magic"], [0.5])


def test_a_ratio_that_a_method_cannot_do_names_method_and_limit(small: LoadedModel) -> None:
    with pytest.raises(InvalidParameter, match=r"ratio must be between 0 and 0\.86.* for prune; got 0\.9"):
        settings_of(small, ["prune"], [0.9])


@given(st.floats(0.25, 2))
def test_the_cheapest_plan_within_a_cost_is_the_least_reduction(small: LoadedModel, share: float) -> None:
    gmacs = share * small.geometry.gmacs(DENSE)

    def make(removed: int) -> ReductionPlan:
        return plan_for_ratio(removed / 36, patches=36, depth=6)

    costs = [small.geometry.gmacs(make(removed)) for removed in range(32)]
    if gmacs < costs[-1] - 1e-9:
        with pytest.raises(InvalidParameter, match="gmacs must be at least"):
            cheapest_within(gmacs, make, 31, small.geometry)
        return
    plan = cheapest_within(gmacs, make, 31, small.geometry)
    removed = sum(plan.removed)
    assert costs[removed] <= gmacs + 1e-9
    assert removed == 0 or costs[removed - 1] > gmacs


def test_each_row_is_against_the_dense_model(small: LoadedModel, batches: Callable[..., list[Crops]]) -> None:
    rows = evaluate(small, batches(8), settings_of(small, ["ppt", "prune"], [0.755]), seed=0)
    assert (rows[0].figures.agreement, rows[0].figures.drop, rows[0].gmacs) == (1.0, 0.0, small.dial.gmacs(0))
    assert all(row.figures.kl for row in rows[1:])
    document = json.loads(json.dumps(report(small, rows, seed=0)))
    assert document["rows"][1]["plan"]["removed"] == list(rows[1].plan.removed if rows[1].plan else ())


def test_a_second_look_costs_what_it_takes(small: LoadedModel, batches: Callable[..., list[Crops]]) -> None:
    settings = settings_of(small, ["ppt"], [0.755], escalate_below=[0.2, 1.0])
    dense, plain, some, every = evaluate(small, batches(8), settings, seed=0)
    assert (plain.escalated, every.escalated) == (None, 1.0)
    assert every.figures.agreement == 1.0
    assert every.gmacs == pytest.approx(plain.gmacs + dense.gmacs)
    assert some.escalated is not None
    assert some.gmacs == pytest.approx(plain.gmacs + some.escalated * dense.gmacs)
    assert some.figures.agreement >= plain.figures.agreement


def run(*arguments: str) -> int:
    return cli.run(["evaluate", *arguments])


def test_the_command_prints_a_table_and_writes_json_and_a_picture(
    small_store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ("--labels", str(photos / "labels.csv"))
    files = ("--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png"))
    common = ("small", "--model-store", str(small_store), "--images", str(photos))
    assert run(*common, *labels, "--ratios", "0.5", "--methods", "dial,fuse", *files) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.strip()] == [
        "METHOD",
        "dense",
        "dial",
        "fuse",
        "12",
    ]
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["method"], row["figures"]["images"]) for row in rows] == [
        ("dense", 12),
        ("dial", 12),
        ("fuse", 12),
    ]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_by_default_the_dial_is_measured_beside_the_papers_method_and_the_columns_are_explained(
    small_store: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("small", "--model-store", str(small_store), "--images", str(photos), "--ratios", "0.5")
    assert run(*common, "--labels", str(photos / "labels.csv")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["METHOD", "dense", "dial", "ppt", "12"]
    explained = [part.split(":")[0] for part in lines[-1].split("; ")[1:]]
    heads = lines[0].replace("LOST/GAINED", "LOST/GAINED ").split()
    assert [head for head in heads if head in explained] == [
        "AGREEMENT",
        "KL",
        "ECE",
        "DROP",
        "LOST/GAINED",
        "P",
    ]
    assert run(*common) == 0
    assert "DROP: points of agreement lost" in capsys.readouterr().out


def test_second_looks_are_lines_of_their_own(
    small_store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("small", "--model-store", str(small_store), "--images", str(photos))
    options = ("--ratios", "0.5", "--methods", "dial", "--escalate-below", "0.3", "--plot")
    assert run(*common, *options, str(tmp_path / "a.png")) == 0
    assert "dial, again below 0.3: " in capsys.readouterr().out


def test_without_labels_only_agreement_is_told(
    small_store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("small", "--model-store", str(small_store), "--images", str(photos), "--limit", "5")
    assert run(*common, "--ratios", "0.5", "--methods", "dial", "--plot", str(tmp_path / "a.png")) == 0
    out = capsys.readouterr().out
    assert "AGREEMENT" in out
    assert "TOP-1" not in out
    assert "5 images" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "."], "name a MODEL, or a server with --url"),
        (["m", "--images", ".", "--ratios", "a"], "--ratios must be comma-separated numbers"),
        (["m", "--images", ".", "--ratios", "1"], "--ratios must be from 0 to below 1"),
        (
            ["m", "--images", ".", "--url", "http://x", "--dtype", "float32"],
            "--dtype is a setting of the server",
        ),
        (
            ["m", "--images", ".", "--url", "http://x", "--match-gmacs"],
            "--match-gmacs is a setting of the server",
        ),
        (["small", "--images", "nowhere"], "images must be a folder of images; got 'nowhere'"),
        (["small", "--images", ".", "--methods", "magic"], "method must be dial, ppt"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    small_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PRUNEPOOL_MODEL_STORE", str(small_store))
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_report_that_cannot_be_written_does_not_lose_the_table_nor_the_other_way_round(
    small_store: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    common = ("small", "--model-store", str(small_store), "--images", str(photos), "--methods", "dial")
    (tmp_path / "file").touch()
    assert run(*common, "--ratios", "0.5", "--json", str(tmp_path / "file" / "out.json")) == 2
    out, err = capsys.readouterr()
    assert "24 images; " in out
    assert "out.json cannot be written: " in err

    def unread(text: str) -> int:
        raise OutputLost(BrokenPipeError(errno.EPIPE, "Broken pipe"))

    monkeypatch.setattr("prunepool.cli.streams.give_up_output", lambda: None)
    monkeypatch.setattr("sys.stdout.write", unread)
    assert run(*common, "--ratios", "0.5", "--json", str(tmp_path / "out.json")) == NOBODY_READS
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["figures"]["images"] == 24


def test_images_that_are_broken_are_left_out_and_counted(
    small_store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("00.png", "01.png", "02.png"):
        (folder / name).write_bytes((photos / name).read_bytes())
    (folder / "00a.png").write_bytes((photos / "00.png").read_bytes()[:100])
    (folder / "notes.txt").touch()
    common = ("small", "--model-store", str(small_store), "--images", str(folder), "--methods", "dial")
    arguments = (*common, "--ratios", "0.5", "--batch-size", "1", "--json", str(tmp_path / "out.json"))
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert "3 images; " in out
    skipped, left_out = err.splitlines()
    assert skipped == f"prunepool: {folder}: skipped 1: 1 of other kinds"
    why = f"prunepool: 1 of 4 images cannot be decoded and are left out: {folder}/00a.png: "
    assert left_out.startswith(why)
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["left_out"], document["rows"][0]["figures"]["images"]) == (1, 3)
    for path in folder.glob("*.png"):
        path.write_bytes(b"no picture")
    assert run(*arguments) == 1
    assert "prunepool: none of 4 images can be decoded; " in capsys.readouterr().err
