"""The load test itself: real server, real Locust. What it makes of the rates is in test_speedups.py.

Whether a speedup is there cannot be told from seconds on a busy machine; that one is not there can.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_a_run_reports_what_it_saw(root: Path, tmp_path: Path) -> None:
    done = validate(root, tmp_path)
    report = orjson.loads((tmp_path / "speedups.json").read_bytes())
    (verdict,) = report["verdicts"]
    assert verdict["speedup"]["mean"] > 0, done.stdout
    assert verdict["predicted"] > verdict["needed"] > 1
    assert done.returncode == (0 if verdict["shown"] else 1)
    assert report["failed"] == 0
    for name in ("locust.html", "locust_stats.csv", "speedups.png"):
        assert (tmp_path / name).stat().st_size > 0, name


def test_a_build_that_only_says_so_fails(root: Path, tmp_path: Path) -> None:
    done = validate(root, tmp_path, "--server", sys.executable, str(DENSE_BUILD))
    assert done.returncode == 1, done.stderr
    assert "NOT THERE" in done.stdout
    assert orjson.loads((tmp_path / "speedups.json").read_bytes())["failed"] == 0, "for another reason"
