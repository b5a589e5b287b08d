"""What the image is made of, and what compose publishes."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

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


def test_the_grace_period_covers_the_drain(root: Path) -> None:
    from prunepool.settings import Settings

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
