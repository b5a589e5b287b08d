"""The Ray application on a real Ray of this machine, where there is one (make ray-test makes .venv-ray)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

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

_DEPLOYMENTS = """
from ray.serve import Application
from prunepool.ray_app.serve import app

def names(application):
    bound = application._bound_deployment
    return {bound.name}.union(*(names(one) for one in bound.init_args if isinstance(one, Application)))

print(*sorted(names(app({}))))
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


def test_the_committed_configuration_names_the_deployments_of_the_application(
    python: Path, root: Path
) -> None:
    application = yaml.safe_load((root / "docker/ray/serve.yaml").read_text())["applications"][0]
    done = subprocess.run([python, "-c", _DEPLOYMENTS], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == sorted(one["name"] for one in application["deployments"]), done.stderr


@pytest.mark.timeout(180)
def test_an_engine_replica_by_itself(python: Path, root: Path) -> None:
    program = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ray_app/test_engine.py"]
    done = subprocess.run(program, cwd=root, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout


@pytest.mark.timeout(180)
def test_answers_are_those_of_the_plain_server(python: Path, root: Path, tmp_path: Path) -> None:
    report = tmp_path / "ray.json"
    program = [python, root / "loadtests/ray_cluster.py", "--only", "parity", "--json", report]
    done = subprocess.run(program, cwd=root, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    parity = json.loads(report.read_text())["scenes"]["parity"]
    assert parity["answers"] >= 12
    assert parity["same_routes"]
