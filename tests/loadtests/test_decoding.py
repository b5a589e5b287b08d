"""The measurement of decoding: its figures, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import decoding
import numpy as np
import pytest
from pictures import pictures


def test_the_services_pixels_are_timms_and_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "MOST_MS", float("inf"))  # of a busy machine
    monkeypatch.setattr(decoding, "photos", lambda folder: pictures(2, size=500, height=375))
    assert decoding.main(["--rounds", "1", "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == 2
    assert report["environment"]["simplejpeg"]
    ours = report["decoders"]["prunepool"]
    assert ours["core_ms"] > 0
    assert ours["largest_difference"] <= 2
    assert report["decoders"]["Pillow: all decoded, resized, cropped"]["largest_difference"] == 0
    assert "| prunepool | " in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["slow", "wrong"])
def test_it_fails_where_a_promise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(decoding, "MOST_MS", 0.0 if fault == "slow" else float("inf"))
    monkeypatch.setattr(decoding, "photos", lambda folder: pictures(1, size=500, height=375))
    if fault == "wrong":
        monkeypatch.setattr(decoding, "service", lambda data: np.zeros((224, 224, 3), np.uint8))
    assert decoding.main(["--rounds", "1", "--json", str(tmp_path / "report.json")]) == 1
