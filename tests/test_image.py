"""What the image is made of, and what compose publishes."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunepool.settings import Settings

#: What each image installs, the smaller one first.
IMAGES = ["docker/cpu.lock", "docker/torch.lock"]
DOCKERFILES = ["docker/cpu.Dockerfile", "docker/Dockerfile"]


def locked(text: str) -> dict[str, str]:
    """Name and version of each entry of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("one", "other"), [*itertools.pairwise(["requirements.lock", *IMAGES, "requirements-dev.lock"])]
)
def test_the_images_and_the_tests_have_the_locked_versions(root: Path, one: str, other: str) -> None:
    ours, theirs = (locked((root / name).read_text()) for name in (one, other))
    assert ours.items() <= theirs.items(), "run `make lock`"


@pytest.mark.parametrize(
    "lock",
    [
        "requirements.lock",
        "requirements-dev.lock",
        *IMAGES,
        "tests/interop/requirements.lock",
    ],
)
def test_every_locked_file_is_known_by_its_hash_and_no_index_is_named(root: Path, lock: str) -> None:
    entries = re.split(r"^(?=\S)", (root / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 40
    for entry in entries:
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+( ; [^\\]+)? \\\n    --hash=sha256:", entry), entry[
            :100
        ]
        assert "://" not in entry


@pytest.mark.parametrize(
    ("lock", "extra"),
    [*itertools.product(IMAGES, ["grpc", "otel"]), *itertools.product(IMAGES[1:], ["torch", "gpu"])],
)
def test_an_image_has_what_a_setting_may_ask_for(root: Path, lock: str, extra: str) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[>=]", requirement)[0] for requirement in extras[extra]}
    assert wanted - {"prunepool"} <= locked((root / lock).read_text()).keys(), "run `make lock`"


@pytest.mark.parametrize("lock", ["requirements.lock", "docker/cpu.lock"])
def test_what_serves_on_a_cpu_needs_neither_torch_nor_cuda(root: Path, lock: str) -> None:
    names = locked((root / lock).read_text()).keys()
    assert {"openvino", "numpy", "pillow"} <= names
    heavy = {"torch", "torchvision", "timm", "triton", "huggingface-hub", "matplotlib", "nncf"}
    assert not heavy & names
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]


def test_an_image_with_torch_for_a_cpu_leaves_out_what_is_for_cuda_and_nothing_else(root: Path) -> None:
    sed = shutil.which("sed")
    if sed is None:
        pytest.skip("needs sed")
    lock = root / "docker/torch.lock"
    command = [sed, "-E", "-f", root / "docker/without-cuda.sed", lock]
    kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    left_out = locked(lock.read_text()).keys() - locked(kept).keys()
    for_cuda = {name for name in left_out if name.startswith(("nvidia-", "cuda-"))}
    assert left_out == for_cuda | {"torch", "torchvision", "triton"}
    assert "nvidia-ml-py" in locked(kept), "it reads the GPU's figures, and is no part of CUDA"
    entries = re.findall(r"^[a-z0-9-]+==.*(?:\n    --hash=.*)+", kept, re.MULTILINE)
    assert "\n".join(entries) == kept.strip(), "an entry was cut in the middle"


def test_compose_publishes_on_loopback_alone(root: Path) -> None:
    services = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


SERVERS = ("check", "prunepool")


def services_of(root: Path, *files: str) -> dict[str, Any]:
    """The services of compose files."""
    found: dict[str, Any] = {}
    for file in files:
        found |= yaml.safe_load((root / file).read_text())["services"]
    return found


def test_every_setting_reaches_the_service(root: Path) -> None:
    services = services_of(root, "docker-compose.yml")
    for name in SERVERS:
        given = services[name]["environment"]
        keys = "PRUNEPOOL_API_KEYS_FILE"
        assert {f"PRUNEPOOL_{one.upper()}" for one in Settings.model_fields} - given.keys() == {keys}
        fixed = {variable for variable, value in given.items() if value is not None and variable not in value}
        assert fixed == {
            f"PRUNEPOOL_{one}" for one in ("HOST", "PORT", "MODEL_STORE", "CPU_OPENVINO_FOLDER")
        } | {"PRUNEPOOL_PUBLIC_URL"}
    with_keys = services_of(root, "docker-compose.keys.yml")
    assert all(keys in with_keys[name]["environment"] for name in SERVERS)


@pytest.fixture
def composed(root: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What compose makes of its files beside a `.env`."""
    found = shutil.which("docker-compose")
    if found is None:
        pytest.skip("needs docker-compose (apt-get install docker-compose)")
    for file in root.glob("docker-compose*.yml"):
        shutil.copy(file, tmp_path)

    def compose(env: str, *files: str) -> dict[str, Any]:
        (tmp_path / ".env").write_text(env)
        named = [part for file in files for part in ("-f", file)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PRUNEPOOL_")}
        done = subprocess.run(
            [found, *named, "config"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
        return services

    return compose


def test_what_is_in_env_reaches_the_service_and_a_small_host_can_start_it(
    composed: Callable[..., dict[str, Any]],
) -> None:
    env = "PRUNEPOOL_DTYPE=float32\nPRUNEPOOL_PORT=9000\nPRUNEPOOL_MODELS=a,b\n"
    for name in SERVERS:
        service = composed(env)[name]
        given = service["environment"]
        assert (given["PRUNEPOOL_DTYPE"], given["PRUNEPOOL_MODELS"]) == ("float32", "a,b")
        assert (given["PRUNEPOOL_PORT"], given["PRUNEPOOL_LOG_LEVEL"]) == ("8000", None)
        assert given["PRUNEPOOL_PUBLIC_URL"] == "http://127.0.0.1:9000"
        assert float(service["cpus"]) == 0, "all cores of the host, however few"
    assert composed(env)["prunepool"]["ports"] == ["127.0.0.1:9000:8000/tcp"]


def test_a_gpu_and_keys_are_one_more_file_each(composed: Callable[..., dict[str, Any]]) -> None:
    files = ("docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.keys.yml")
    services = composed("PRUNEPOOL_KEYS_FILE=./mine.toml\n", *files)
    for name in SERVERS:
        service = services[name]
        assert service["environment"]["PRUNEPOOL_DEVICE"] == "cuda"
        assert service["environment"]["PRUNEPOOL_API_KEYS_FILE"] == "/run/secrets/prunepool_keys"
        assert [one["source"] for one in service["secrets"]] == ["prunepool_keys"]
        assert service["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
        assert service["image"] == "prunepool:cuda"


def test_what_cannot_start_is_found_before_it_is_restarted_for_ever(root: Path) -> None:
    services = services_of(root, "docker-compose.yml")
    assert services["check"]["command"] == ["doctor"]
    assert services["check"]["restart"] == "no"
    waits = services["prunepool"]["depends_on"]["check"]["condition"]
    assert waits == "service_completed_successfully"
    assert services["prunepool"]["restart"] == "unless-stopped", "a lost device ends the server"


def test_images_are_pinned_and_nobody_reads_dashboards_without_a_password(root: Path) -> None:
    services = services_of(root, "docker-compose.yml")
    for name in ("prometheus", "grafana"):
        assert re.search(r"_TAG:-v?\d+\.\d+\.\d+\}$", services[name]["image"])
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"].endswith(":-false}")


def test_the_grace_period_covers_the_drain(root: Path) -> None:
    service = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]["prunepool"]
    assert float(service["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout_s


def test_what_shares_the_service_s_image_shares_it_on_a_gpu_too(root: Path) -> None:
    for file, tag in (("docker-compose.yml", "latest"), ("docker-compose.gpu.yml", "cuda")):
        services = yaml.safe_load((root / file).read_text())["services"]
        image = f"prunepool:${{PRUNEPOOL_TAG:-{tag}}}"
        assert services["prunepool"]["image"] == image
        assert services["locust"]["build"]["args"]["IMAGE"] == image
    assert services["models"]["image"] == image, "both have PyTorch"


def test_compose_serves_without_torch_and_changes_models_with_it(root: Path) -> None:
    cpu, gpu = (
        yaml.safe_load((root / name).read_text())["services"]
        for name in ("docker-compose.yml", "docker-compose.gpu.yml")
    )
    built = [one["build"] for one in (cpu["prunepool"], cpu["models"], gpu["prunepool"])]
    files = ["docker/cpu.Dockerfile", "docker/Dockerfile", "docker/Dockerfile"]
    assert [build["dockerfile"] for build in built] == files
    for build, file in zip(built, files, strict=True):
        assert f"AS {build['target']}\n" in (root / file).read_text()
    assert cpu["models"]["image"] != cpu["prunepool"]["image"]


def test_every_model_of_the_repository_is_in_the_image(root: Path) -> None:
    embedded = set(re.findall(r"^!/(\w+)/$", (root / "model_store/.gitignore").read_text(), re.MULTILINE))
    sent = set(re.findall(r"^!model_store/(\w+)$", (root / ".dockerignore").read_text(), re.MULTILINE))
    assert "deit_tiny_imagenette" in embedded
    assert sent == embedded


@pytest.mark.parametrize("file", DOCKERFILES)
def test_the_package_is_built_of_what_the_image_s_builder_has(root: Path, file: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    stage = re.search(r"^FROM \S+ AS package\n(.*?)^FROM ", (root / file).read_text(), re.M | re.S)
    assert stage is not None
    copied = {name for line in re.findall(r"^COPY (.*)$", stage[1], re.M) for name in line.split()[:-1]}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {Path(path).parts[0] for path in (*wheel["packages"], *wheel["force-include"])}
    assert needed == copied
    sent = {
        Path(line[1:]).parts[0]
        for line in (root / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    assert needed <= sent
