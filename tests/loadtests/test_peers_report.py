"""The report of a comparison with peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contenders import DTYPES, PEERS, settings
from peers_report import draw, show, summary

Row = dict[str, Any]
WHERE = {
    "device": "a processor",
    "cores": 2,
    "torch": "2",
    "instructions": ["avx2", "avx512f", "avx512_vnni"],
}


def row(name: str, ratio: str, number: int, rate: float, dtype: str = "float32", **more: str) -> Row:
    ours = name == "prunepool"
    return {
        "stage": "round",
        "group": "float32",
        "name": name,
        "runtime": "its choice" if ours else "OpenVINO",
        "dtype": dtype,
        "setting": "one",
        "ran": dtype,
        "ratio": ratio,
        "round": number,
        "images_per_s": rate,
        "latencies_ms": [10.0 * rate, 20.0 * rate],
        "errors": [],
        "others": 0.0,
        **more,
    }


@pytest.fixture
def rows() -> list[Row]:
    names = {"name": "mosec", "runtime": "PyTorch", "dtype": "float32", "setting": "one"}
    made: list[Row] = [{"stage": "choose", **names, "failure": "does not answer"}]
    for number, speed in enumerate((1.0, 0.5, 2.0)):
        made.append(row("LitServe", "0", number, 10 * speed))
        made.append(row("BentoML", "0", number, 8 * speed))
        made.append(row("prunepool", "0", number, 12 * speed))
        made.append(row("prunepool", "0.755", number, 18 * speed))
    return made


def test_it_is_compared_with_the_best_peer_round_by_round(rows: list[Row]) -> None:
    found = summary(rows)["groups"]["float32"]
    ours = [one for one in found if one["name"] == "prunepool"]
    assert {one["best_peer"] for one in ours} == {"LitServe, OpenVINO"}
    over = {one["ratio"]: one["over_best_peer"] for one in ours}
    assert over == {"0": pytest.approx(1.2), "0.755": pytest.approx(1.8)}
    assert [one["images_per_s"] for one in found] == [18, 12, 10, 8]
    assert {one["p99_of_best_peer_ms"] for one in ours} == {400.0}
    assert "best_peer" not in next(one for one in found if one["name"] == "LitServe")


def test_each_dtype_has_a_best_peer_of_its_own(rows: list[Row]) -> None:
    for number in range(3):
        rows.append(row("mosec", "0", number, 20, "int8", group="int8", ran="int8, the rest bfloat16"))
        rows.append(row("LitServe", "0", number, 25, "int8", group="int8"))
        rows.append(row("prunepool", "0.755", number, 50, "auto", group="int8", ran="int8"))
        rows.append(row("prunepool", "0.755", number, 50, "auto", ran="int8"))
    groups = summary(rows)["groups"]
    auto = {dtype: next(one for one in found if one["dtype"] == "auto") for dtype, found in groups.items()}
    assert auto["int8"]["over_best_peer"] == pytest.approx(2.0)
    assert auto["float32"]["best_peer"] == "LitServe, OpenVINO"
    mosec = next(one for one in groups["int8"] if one["name"] == "mosec")
    assert mosec["ran"] == "int8, the rest bfloat16", "what it said, not what it was asked for"


def test_without_a_peer_nothing_is_claimed(rows: list[Row]) -> None:
    rows.append(row("prunepool", "0", 0, 13.0, "bfloat16", group="bfloat16"))
    (one,) = summary(rows)["groups"]["bfloat16"]
    assert "over_best_peer" not in one


def test_peers_that_did_not_start_are_named(rows: list[Row]) -> None:
    (tried,) = summary(rows)["tried"]
    assert (tried["name"], tried["runtime"], tried["failure"]) == ("mosec", "PyTorch", "does not answer")


def test_the_table_names_the_processor_and_what_each_computes_in(
    rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    rows.append(row("prunepool", "0.755", 0, 30.0, "auto", ran="int8"))
    rows = [one for one in rows if one["stage"] == "choose" or one["round"] == 0]
    show({"environment": WHERE, **summary(rows)})
    said = capsys.readouterr().out
    assert "a processor (AVX-512, VNNI), 2 cores" in said
    assert "| prunepool, ratio 0.755, dtype auto | int8 | 30.0 |" in said
    assert "| LitServe, OpenVINO | float32 | 10.0 |" in said


def test_it_can_be_drawn(rows: list[Row], tmp_path: Path) -> None:
    rows.append(row("prunepool", "0", 0, 13.0, "int8", group="int8"))
    report = {"architecture": "deit", "clients": 16, "environment": WHERE, **summary(rows)}
    draw(report, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_every_peer_is_tried_with_openvino_in_every_dtype() -> None:
    tried = {(one.name, one.runtime, one.dtype, one.workers) for one in settings(2)}
    for name in PEERS:
        for dtype in DTYPES:
            assert {(name, "OpenVINO", dtype, workers) for workers in (1, 2)} <= tried
        assert {(name, "PyTorch", dtype, 2) for dtype in ("float32", "bfloat16")} <= tried
    assert {dtype for name, _, dtype, _ in tried if name == "prunepool"} == {*DTYPES, "auto"}
    assert {one.dtype for one in settings(2, ["float32"])} == {"float32", "auto"}
