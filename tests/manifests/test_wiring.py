"""What the manifests say about the service is true of the service, and of each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from prunepool.api import server
from prunepool.api.app import create_app
from prunepool.metrics import Metrics
from prunepool.server import parent
from prunepool.settings import Settings
from prunepool.store import ModelStore
from prunepool.testing import FakeService, fake_model

Object = dict[str, Any]
Built = Callable[[str], dict[str, Object]]
OVERLAYS = ["overlays/cpu", "overlays/gpu"]
SCHEMES = [*OVERLAYS, "kserve"]
#: Set by both images.
BY_THE_IMAGE = {"PRUNEPOOL_HOST": "0.0.0.0", "PRUNEPOOL_PORT": "8000", "PRUNEPOOL_MODEL_STORE": "/models"}


def pod(objects: dict[str, Object]) -> Object:
    if "ServingRuntime" in objects:
        spec: Object = objects["ServingRuntime"]["spec"]
        return {**objects["InferenceService"]["spec"]["predictor"], **spec}
    template: Object = objects["Deployment"]["spec"]["template"]
    return template["spec"]


def container(objects: dict[str, Object]) -> Object:
    (one,) = pod(objects)["containers"]
    found: Object = one
    return found


def environment(objects: dict[str, Object]) -> dict[str, str]:
    """What the container will find, with the limits that Kubernetes hands on."""
    one = container(objects)
    found = dict(BY_THE_IMAGE)
    for source in one.get("envFrom", ()):
        assert source["configMapRef"]["name"] == objects["ConfigMap"]["metadata"]["name"]
        found |= objects["ConfigMap"]["data"]
    for variable in one["env"]:
        field = variable.get("valueFrom", {}).get("resourceFieldRef", {}).get("resource")
        limits = {f"limits.{name}": value for name, value in one["resources"]["limits"].items()}
        found[variable["name"]] = variable["value"] if field is None else limits[field]
    return found


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, Object]], Settings]:
    def read(objects: dict[str, Object]) -> Settings:
        monkeypatch.chdir(tmp_path)
        for name, value in environment(objects).items():
            assert name.removeprefix("PRUNEPOOL_").lower() in Settings.model_fields, f"{name} is no setting"
            monkeypatch.setenv(name, value)
        return Settings()

    return read


@pytest.fixture
def status_of() -> Iterator[Callable[[str], int]]:
    """The status of a path of the service, asked while it is ready."""
    engine = FakeService([fake_model("m")])
    with TestClient(create_app(engine, Settings(), Metrics(CollectorRegistry()))) as client:
        yield lambda path: client.get(path).status_code


@pytest.mark.parametrize("file", ["Dockerfile", "cpu.Dockerfile"])
def test_the_image_sets_what_the_manifests_count_on(root: Path, file: str) -> None:
    dockerfile = (root / "docker" / file).read_text()
    assert {f"{k}={v}" for k, v in BY_THE_IMAGE.items()} <= set(re.findall(r"PRUNEPOOL_\w+=\S+", dockerfile))
    assert "USER 10001:10001" in dockerfile


@pytest.mark.parametrize("scheme", SCHEMES)
def test_settings_are_settings_with_values_that_they_may_have(
    built: Built, settings_of: Callable[[dict[str, Object]], Settings], scheme: str
) -> None:
    objects = built(scheme)
    settings = settings_of(objects)
    cores = int(container(objects)["resources"]["limits"]["cpu"])
    assert settings.compute_threads is None, "it follows the limit"
    assert settings.frontends * (settings.decode_threads or 1) <= cores
    assert settings.device == ("cuda" if "gpu" in scheme else "cpu")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_probes_and_ports_are_those_of_the_service(
    built: Built, status_of: Callable[[str], int], scheme: str
) -> None:
    one = container(built(scheme))
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    probes = {name: probe["httpGet"] for name, probe in one.items() if name.endswith("Probe")}
    assert {"readinessProbe", "livenessProbe"} <= probes.keys()
    assert {status_of(probe["path"]) for probe in probes.values()} == {200}
    ready = [probe["path"] for name, probe in probes.items() if name != "livenessProbe"]
    assert set(ready) <= {"/readyz", "/v2/health/ready"}, "a drain must be seen"
    assert probes["livenessProbe"]["path"] in {"/healthz", "/v2/health/live"}, "a restart must not be"
    assert {ports.get(probe["port"], probe["port"]) for probe in probes.values()} == {8000}
    assert Settings().protect_health is False, "probes have no key"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_killed_in_its_drain(
    built: Built, settings_of: Callable[[dict[str, Object]], Settings], scheme: str
) -> None:
    objects = built(scheme)
    settings = settings_of(objects)
    hook = container(objects).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    # With processes of their own, the parent waits longer than one process would.
    needed = hook + settings.drain_timeout_s + max(server._FLUSH_TIMEOUT_S, parent._LAST_WRITES_S)
    assert pod(objects)["terminationGracePeriodSeconds"] > needed + parent._STOP_S


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_container_may_do_nothing_that_it_need_not(built: Built, scheme: str) -> None:
    objects = built(scheme)
    one, spec = container(objects), pod(objects)
    allowed = {**spec.get("securityContext", {}), **one["securityContext"]}
    assert allowed["runAsNonRoot"]
    assert allowed["runAsUser"] == 10001
    assert allowed["readOnlyRootFilesystem"]
    assert allowed["allowPrivilegeEscalation"] is False
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert allowed["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [mount["mountPath"] for mount in one["volumeMounts"]] == ["/tmp"]
    assert one["resources"]["requests"] == one["resources"]["limits"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_variables_of_services_are_not_taken_for_settings(built: Built, scheme: str) -> None:
    assert pod(built(scheme))["enableServiceLinks"] is False, "PRUNEPOOL_PORT would be tcp://…"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(built: Built, overlay: str) -> None:
    objects = built(overlay)
    spec = objects["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    ports = [port["name"] for port in container(objects)["ports"]]
    assert [port["targetPort"] for port in objects["Service"]["spec"]["ports"]] == ports
    assert [port["port"] for port in objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"]] == ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_prometheus_finds_the_metrics(built: Built, status_of: Callable[[str], int], overlay: str) -> None:
    objects = built(overlay)
    monitor, service = objects["ServiceMonitor"], objects["Service"]
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert status_of(endpoint["path"]) == 200
    allowed = objects["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    assert {"kubernetes.io/metadata.name": "monitoring"} in [
        source["namespaceSelector"]["matchLabels"] for source in allowed if "namespaceSelector" in source
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_autoscaler_has_the_deployment_to_itself_and_asks_for_series_that_exist(
    built: Built, overlay: str
) -> None:
    objects = built(overlay)
    scaler, deployment = objects["ScaledObject"], objects["Deployment"]
    assert scaler["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"], "an apply would undo what the autoscaler did"
    registry = CollectorRegistry()
    Metrics(registry)
    known = {metric.name for metric in registry.collect()}
    monitor = objects["ServiceMonitor"]
    job = objects["Service"]["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    selector = f'{{job="{job}",namespace="{deployment["metadata"]["namespace"]}"}}'
    for trigger in scaler["spec"]["triggers"]:
        query = trigger["metadata"]["query"]
        assert set(re.findall(r"prunepool_\w+", query)) <= known
        assert set(re.findall(r"\{.*?\}", query)) == {selector}


def test_auto_reduces_only_after_more_replicas_were_asked_for(built: Built) -> None:
    from prunepool.core import ratio_controller

    objects = built("overlays/cpu")
    drain, _ = objects["ScaledObject"]["spec"]["triggers"]
    target_s = float(objects["ConfigMap"]["data"]["PRUNEPOOL_TARGET_LATENCY_MS"]) / 1000
    assert float(drain["metadata"]["threshold"]) < ratio_controller._STEP_UP_SHARE * target_s


def test_prometheus_computes_what_the_autoscaler_should_get(built: Built, tmp_path: Path) -> None:
    """Two replicas: with 0.1 s ahead of one and 0.5 s of the other, and with auto at 0.2 and 0.6 of 0.8."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    queries = [t["metadata"]["query"] for t in built("overlays/cpu")["ScaledObject"]["spec"]["triggers"]]
    where = 'model="m",job="prunepool",namespace="prunepool",pod='
    values = {
        "prunepool_queue_drain_seconds": (0.1, 0.5),
        "prunepool_auto_reduction_ratio": (0.2, 0.6),
        "prunepool_auto_reduction_ratio_limit": (0.8, 0.8),
    }
    series = [
        {"series": f'{name}{{{where}"{pod}"}}', "values": f"{value}+0x20"}
        for name, both in values.items()
        for pod, value in zip("ab", both, strict=True)
    ]
    cases = [
        {"expr": query, "eval_time": "1m", "exp_samples": [{"value": value}]}
        for query, value in zip(queries, (0.6, 1.0), strict=True)
    ]
    file = tmp_path / "queries.yml"
    test = {"interval": "5s", "input_series": series, "promql_expr_test": cases}
    file.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kserve_gets_a_model_that_the_runtime_can_open(built: Built, root: Path, tmp_path: Path) -> None:
    objects = built("kserve")
    predictor = objects["InferenceService"]["spec"]["predictor"]["model"]
    runtime = objects["ServingRuntime"]
    assert predictor["runtime"] == runtime["metadata"]["name"]
    assert predictor["modelFormat"]["name"] in [f["name"] for f in runtime["spec"]["supportedModelFormats"]]
    assert predictor["protocolVersion"] in runtime["spec"]["protocolVersions"]
    stored = root / "model_store" / Path(predictor["storageUri"]).name
    mounted = tmp_path / Path(environment(objects)["PRUNEPOOL_MODEL"]).name  # its folder has KServe's name
    mounted.symlink_to(stored)
    assert ModelStore(tmp_path / "empty").open(mounted).manifest.name == stored.name
