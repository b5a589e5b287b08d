"""The Ray application on a real Ray of this machine, where there is one (make ray-test makes .venv-ray)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

_REFUSED = """
from prunepool.errors import InvalidParameter
from prunepool.ray_app.serve import app
for arguments in ({"frontends": 2}, {"devices": "cpu,cpu"}, {"grpc_port": 0}, {"model_control": "explicit"}):
    try:
        app(arguments)
    except InvalidParameter as error:
        print(error.extra["parameter"])
print(app({"max_queue_requests": 7})._bound_deployment.name)
"""


@pytest.fixture
def python(root: Path) -> Path:
    found = root / ".venv-ray" / "bin" / "python"
    if not found.exists():
        pytest.skip("needs Ray in an environment of its own (make ray-test)")
    return found


def test_settings_that_are_rays_to_make_are_refused(python: Path) -> None:
    done = subprocess.run([python, "-c", _REFUSED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["frontends", "frontends", "grpc_port", "model_control", "Ingress"], (
        done.stderr
    )


@pytest.mark.timeout(180)
def test_answers_are_those_of_the_plain_server(python: Path, root: Path, tmp_path: Path) -> None:
    report = tmp_path / "ray.json"
    program = [python, root / "loadtests/ray_cluster.py", "--only", "parity", "--json", report]
    done = subprocess.run(program, cwd=root, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    parity = json.loads(report.read_text())["scenes"]["parity"]
    assert parity["answers"] >= 12
    assert parity["same_routes"]
