"""The load test itself: real server, real Locust. test_speedups.py tests the statistics.

Whether a speedup is there cannot be told from seconds on a busy machine; that one is not there can.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

pytestmark = pytest.mark.e2e

DENSE_BUILD = Path(__file__).with_name("dense_build.py")
#: Short phases on a busy machine: the ratio with the largest gain, and a part of it, are enough to tell.
SHORT = ["--ratios", "0.8", "--rounds", "2", "--phase-seconds", "1.6", "--settle-seconds", "0.5"]
SHORT += ["--users", "6", "--predict", "macs", "--keep", "0.3", "--busy", "1"]


def validate(root: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "loadtests/validate.py"), *SHORT, "--out", str(out), *flags]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)


def reported(folder: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The verdict of a run in which no request failed, and which left every file that it should."""
    report = orjson.loads((folder / "speedups.json").read_bytes())
    (verdict,) = report["verdicts"]
    assert verdict["speedup"]["mean"] > 0, done.stdout
    assert verdict["predicted"] > verdict["needed"] > 1
    assert report["failed"] == 0
    for name in ("locust.html", "locust_stats.csv", "speedups.png"):
        assert (folder / name).stat().st_size > 0, name
    found: dict[str, Any] = verdict
    return found


@pytest.mark.nightly  # the other test runs the same, and reads the same report
def test_a_run_that_reaches_the_claim_succeeds(root: Path, tmp_path: Path) -> None:
    done = validate(root, tmp_path)
    verdict = reported(tmp_path, done)
    assert done.returncode == (0 if verdict["shown"] else 1)


def test_a_build_without_reduction_fails(root: Path, tmp_path: Path) -> None:
    done = validate(root, tmp_path, "--server", sys.executable, str(DENSE_BUILD))
    assert not reported(tmp_path, done)["shown"]
    assert done.returncode == 1, done.stderr
    assert "NOT THERE" in done.stdout
