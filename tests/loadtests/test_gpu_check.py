"""The GPU check runs to its end without a GPU, so that it will with one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import check
import orjson
import pytest


def test_it_runs_the_tests_that_need_a_gpu(root: Path) -> None:
    """Where there is none, the part that runs them is left out below."""
    assert "pytest.mark.gpu" in (root / check.TESTS).read_text()


@pytest.mark.e2e
def test_the_short_form_runs_and_reports_every_part(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "loadtests/gpu/check.py", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, "--parts", "speed,decode,service"], cwd=root, env=environment, check=False
    )
    report = orjson.loads((tmp_path / "gpu-check.json").read_bytes())
    assert run.returncode == 0, report
    rows = report["speed"]["report"]["rows"]
    assert {"timm graph", "ratio 0", "ratio 0.755"} <= {row["candidate"] for row in rows}
    assert all(row["images_per_s"] > 0 for row in rows)
    decoders = report["decode"]["report"]
    assert decoders["torchvision"]["mean_difference"] < 1
    assert decoders["server"][0]["images_per_s"] > 0
    (server,) = report["service"]["report"]["servers"]
    assert server["closed"][0]["errors"] == 0
    assert server["half_load"][0]["answered"] == server["half_load"][0]["asked"]
    assert (tmp_path / "gpu-check.png").stat().st_size > 10_000
