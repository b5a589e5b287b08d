"""What the image is made of, and what compose publishes."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml


def locked(text: str) -> dict[str, str]:
    """Name and version of each entry of a lock file."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize("other", ["docker/requirements.lock", "requirements-dev.lock"])
def test_the_image_and_the_tests_have_the_locked_versions(root: Path, other: str) -> None:
    ours = locked((root / "requirements.lock").read_text())
    assert ours.items() <= locked((root / other).read_text()).items(), "run `make lock`"


@pytest.mark.parametrize(
    "lock",
    [
        "requirements.lock",
        "requirements-dev.lock",
        "docker/requirements.lock",
        "tests/interop/requirements.lock",
    ],
)
def test_every_locked_file_is_known_by_its_hash_and_no_index_is_named(root: Path, lock: str) -> None:
    entries = re.split(r"^(?=\S)", (root / lock).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    for entry in entries:
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+( ; [^\\]+)? \\\n    --hash=sha256:", entry), entry[
            :100
        ]
        assert "://" not in entry


@pytest.mark.parametrize("extra", ["gpu", "grpc", "openvino", "otel"])
def test_the_image_has_what_a_setting_may_ask_for(root: Path, extra: str) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[\[>=]", requirement)[0] for requirement in extras[extra]}
    assert wanted <= locked((root / "docker/requirements.lock").read_text()).keys(), "run `make lock`"


def test_an_image_for_cpu_leaves_out_what_is_for_cuda_and_nothing_else(root: Path) -> None:
    sed = shutil.which("sed")
    if sed is None:
        pytest.skip("needs sed")
    lock = root / "docker/requirements.lock"
    command = [sed, "-E", "-f", root / "docker/cpu-lock.sed", lock]
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


def test_the_grace_period_covers_the_drain(root: Path) -> None:
    from prunepool.settings import Settings

    service = yaml.safe_load((root / "docker-compose.yml").read_text())["services"]["prunepool"]
    assert float(service["stop_grace_period"].removesuffix("s")) > Settings().drain_timeout_s


def test_what_shares_the_service_s_image_shares_it_on_a_gpu_too(root: Path) -> None:
    for file, tag in (("docker-compose.yml", "latest"), ("docker-compose.gpu.yml", "cuda")):
        services = yaml.safe_load((root / file).read_text())["services"]
        image = f"prunepool:${{PRUNEPOOL_TAG:-{tag}}}"
        assert services["prunepool"]["image"] == image
        assert services["models"]["image"] == image
        assert services["locust"]["build"]["args"]["IMAGE"] == image


def test_every_model_of_the_repository_is_in_the_image(root: Path) -> None:
    embedded = set(re.findall(r"^!/(\w+)/$", (root / "model_store/.gitignore").read_text(), re.MULTILINE))
    sent = set(re.findall(r"^!model_store/(\w+)$", (root / ".dockerignore").read_text(), re.MULTILINE))
    assert "deit_tiny_imagenette" in embedded
    assert sent == embedded


def test_the_package_is_built_of_what_the_image_s_builder_has(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    stage = re.search(
        r"^FROM \S+ AS package\n(.*?)^FROM ", (root / "docker/Dockerfile").read_text(), re.M | re.S
    )
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
