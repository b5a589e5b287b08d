"""What serves tells nobody that it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

PROGRAM = """
from prunepool.backends import openvino_conversion, openvino_runtime

openvino_runtime.has_bfloat16()
from openvino.tools import ovc
print(ovc.telemetry.__class__.__module__)
"""


def test_openvino_reports_no_import_to_its_makers(tmp_path: Path) -> None:
    """It would keep a number of the user in a folder of theirs, and send it along each time."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "openvino.tools.ovc.telemetry_stub\n"
    assert not (tmp_path / "intel").exists()
