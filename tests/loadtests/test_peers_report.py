"""The report of a comparison with peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peers_report import draw, summary


def row(name: str, ratio: str, number: int, rate: float, *, stage: str = "round") -> dict[str, Any]:
    return {
        "stage": stage,
        "name": name,
        "setting": "one",
        "ratio": ratio,
        "round": number,
        "images_per_s": rate,
        "latencies_ms": [10.0 * rate, 20.0 * rate],
        "errors": [],
        "others": 0.0,
    }


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    made = [{"stage": "choose", "name": "mosec", "setting": "one", "failure": "does not answer"}]
    for number, speed in enumerate((1.0, 0.5, 2.0)):
        made.append(row("LitServe", "0", number, 10 * speed))
        made.append(row("BentoML", "0", number, 8 * speed))
        made.append(row("prunepool", "0", number, 12 * speed))
        made.append(row("prunepool", "0.755", number, 18 * speed))
    return made


def test_it_is_compared_with_the_best_peer_round_by_round(rows: list[dict[str, Any]]) -> None:
    found = summary(rows)
    ours = [one for one in found["contenders"] if one["name"] == "prunepool"]
    assert {one["best_peer"] for one in ours} == {"LitServe"}
    over = {one["ratio"]: one["over_best_peer"] for one in ours}
    assert over == {"0": pytest.approx(1.2), "0.755": pytest.approx(1.8)}
    assert [one["images_per_s"] for one in found["contenders"]] == [18, 12, 10, 8]


def test_with_openvino_it_is_compared_with_a_peer_that_has_it_as_well(rows: list[dict[str, Any]]) -> None:
    for number, speed in enumerate((1.0, 0.5, 2.0)):
        rows.append(row("mosec + OpenVINO", "0", number, 11 * speed))
        rows.append(row("prunepool + OpenVINO", "0", number, 13.2 * speed))
    found = {(one["name"], one["ratio"]): one for one in summary(rows)["contenders"]}
    one = found["prunepool + OpenVINO", "0"]
    assert (one["best_peer"], one["over_best_peer"]) == ("mosec + OpenVINO", pytest.approx(1.2))
    assert found["prunepool", "0"]["best_peer"] == "LitServe"
    assert "best_peer" not in found["mosec + OpenVINO", "0"]


def test_without_a_peer_that_has_it_nothing_is_claimed(rows: list[dict[str, Any]]) -> None:
    rows.append(row("prunepool + OpenVINO", "0", 0, 13.0))
    found = {one["name"]: one for one in summary(rows)["contenders"]}
    assert "over_best_peer" not in found["prunepool + OpenVINO"]


def test_peers_that_did_not_start_are_named(rows: list[dict[str, Any]]) -> None:
    assert summary(rows)["tried"] == [{"name": "mosec", "setting": "one", "failure": "does not answer"}]


def test_it_can_be_drawn(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    where = {"device": "a processor", "cores": 2, "torch": "2"}
    report = {"architecture": "deit", "clients": 16, "environment": where, **summary(rows)}
    draw(report, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
