"""The benchmark's report, and its command."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepool import cli
from prunepool.errors import ArchitectureUnsupported
from prunepool.lab.benchmark import Benchmark, Case
from prunepool.lab.networks import random_network
from prunepool.models.families import make_network


@pytest.fixture(scope="module")
def bench() -> Benchmark:
    vit, size = random_network("deit_tiny_patch16_224")
    return Benchmark(
        vit, size=size, device="cpu", ratios=(0.0, 0.755), rivals=("timm eager", "openvino"), rounds=1
    )


def test_every_candidate_is_measured_against_the_best_dense_rival(bench: Benchmark) -> None:
    rows = bench.run([Case(torch.float32, 5)])
    by_name = {row.candidate: row for row in rows}
    assert {"timm eager", "openvino", "ratio 0", "ratio 0.755", "mixed"} == set(by_name)
    assert by_name["timm eager"].speedup == pytest.approx(1.0)
    assert by_name["ratio 0.755"].bound == pytest.approx(1.57, abs=0.01)
    assert 1.0 < (by_name["mixed"].bound or 0) < 1.6


def test_the_mix_is_held_against_uniform_batches_of_its_ratios() -> None:
    vit, size = random_network("deit_tiny_patch16_224")
    ratios = (0.0, 0.25, 0.5, 0.755, 0.85)
    bench = Benchmark(vit, size=size, device="cpu", ratios=ratios, rivals=("timm eager",), rounds=1)
    by_name = {row.candidate: row for row in bench.run([Case(torch.float32, 5)])}
    uniform_s = sum(1 / by_name[f"ratio {ratio:g}"].images_per_s for ratio in ratios) / 5
    assert by_name["mixed"].of_uniform == pytest.approx(by_name["mixed"].images_per_s * uniform_s)
    assert by_name["ratio 0"].of_uniform is None


def test_a_rival_that_is_not_installed_is_named(bench: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunepool.lab.rivals.find_spec", lambda name: None if name == "openvino" else name)
    rows = bench.run([Case(torch.float32, 1)])
    report = bench.report(rows, "deit_tiny_patch16_224")
    assert report["not_measured"] == ["openvino (float32)"]
    assert json.loads(json.dumps(report))["environment"]["torch"] == torch.__version__


def command_rows(folder: Path, *flags: str) -> dict[str, Any]:
    """The rows of the command's report, by candidate."""
    status = cli.run(
        ["benchmark", "--architecture", "deit_tiny_patch16_224", "--batches", "1", "--ratios", "0,0.5",
         "--rivals", "timm eager", "--rounds", "1", "--json", str(folder / "out.json"), *flags]
    )  # fmt: skip
    assert status == 0
    return {row["candidate"]: row for row in json.loads((folder / "out.json").read_text())["rows"]}


def test_the_command_writes_json_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = command_rows(tmp_path, "--operations", "--plot", str(tmp_path / "out.png"))
    assert "ratio 0.5" in capsys.readouterr().out
    assert set(rows) == {"timm eager", "ratio 0", "ratio 0.5"}
    shares = {one["kind"]: one["share"] for one in rows["ratio 0.5"]["operations"]}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares, key=lambda family: shares[family]) == "linear"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_measures_openvino_in_the_format_of_the_case_and_in_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A third of its blocks: to convert them takes longer than all else.
    monkeypatch.setattr("prunepool.lab.networks.make_network", partial(make_network, depth=4))
    rows = command_rows(tmp_path, "--openvino")
    ways = ("", " openvino", " openvino int8")
    assert set(rows) == {"timm eager", *(f"ratio {r}{by}" for r in ("0", "0.5") for by in ways)}
    assert rows["ratio 0.5 openvino"]["bound"] == rows["ratio 0.5"]["bound"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratios", "a,b"], "--ratios must be comma-separated numbers"),
        (["--ratios", "nan"], "--ratios must be from 0 to below 1"),
        (["--ratios", "2"], "--ratios must be from 0 to below 1"),
        (["--batches", "0"], "--batches must be comma-separated integers from 1 to 4096; got '0'"),
        (["--batches", "x"], "--batches must be comma-separated integers"),
        (["--plot", "x.xyz"], "--plot must be a file that ends in .png"),
        (["--dtypes", "int4"], "--dtypes must be of float32"),
        (["--rivals", "magic"], "--rivals must be of timm eager"),
        (["--method", "magic"], "--method must be one of ppt"),
        (["--url", "http://127.0.0.1:1"], "--url needs --images"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["benchmark", "--architecture", "deit_tiny_patch16_224", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ArchitectureUnsupported, match="deit_gigantic"):
        random_network("deit_gigantic")
