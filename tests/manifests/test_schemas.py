"""Every object is one that an API server would take.

Kubernetes' own kinds against its schemas, unknown fields refused. KServe's against the types of its Python package.
Of KEDA's and the Prometheus operator's objects no schemas are at hand: test_wiring.py checks what they refer to.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

Built = Callable[[str], dict[str, dict[str, Any]]]
#: The oldest release in which all fields are there: PreStop's `sleep` became stable in 1.34.
VERSIONS = ["1.34", kubernetes_validate.latest_version()]
WITHOUT_SCHEMA = {"ScaledObject", "ServiceMonitor", "ServingRuntime", "InferenceService"}
OVERLAYS = ["overlays/cpu", "overlays/gpu"]


@pytest.mark.parametrize("name", ["base", *OVERLAYS, "kserve"])
def test_kustomize_builds_what_the_tests_look_at(built: Built, folder: Path, name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl")
    done = subprocess.run([kubectl, "kustomize", folder / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {one["kind"]: one for one in yaml.safe_load_all(done.stdout)} == built(name)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
def test_objects_fit_kubernetes_schemas(built: Built, overlay: str, version: str) -> None:
    objects = built(overlay)
    checked = objects.keys() - WITHOUT_SCHEMA
    assert checked == {
        "Namespace",
        "ConfigMap",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    for kind in checked:
        kubernetes_validate.validate(objects[kind], version, strict=True)


def test_a_field_that_does_not_exist_is_found(built: Built) -> None:
    deployment = built("overlays/cpu")["Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_kserves_objects_fit_its_types(built: Built, root: Path) -> None:
    python = root / ".venv-interop" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs KServe's package (make interop)")
    objects = built("kserve")
    objects["Typo"] = json.loads(json.dumps(objects["InferenceService"]).replace("storageUri", "storageURL"))
    done = subprocess.run(
        [python, root / "tests/interop/kserve_types.py"],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    unknown = json.loads(done.stdout)
    assert unknown.pop("Typo") == ["spec.predictor.model.storageURL"]
    assert unknown == {"InferenceService": [], "ServingRuntime": []}


def test_keda_gets_text_where_its_type_is_text(built: Built) -> None:
    triggers = built("overlays/cpu")["ScaledObject"]["spec"]["triggers"]
    assert all(isinstance(value, str) for trigger in triggers for value in trigger["metadata"].values())
