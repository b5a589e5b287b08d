"""The wheel and its dependencies alone, without PyTorch: it lists, classifies and serves from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from environments import make_environment

from prunepool.settings import Settings

pytestmark = pytest.mark.e2e

Start = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its dependencies alone; nothing of the checkout, no PyTorch."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=root, check=True, stdout=sys.stderr)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    programs = make_environment(folder / "venv", project["dependencies"])
    python = programs / "python"
    (wheel,) = folder.glob("*.whl")
    install = ["--python", str(python), "install", "--quiet", "--no-index", str(wheel)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *install], env=clean(), check=True
    )
    for library in ("torch", "timm", "torchvision"):
        missing = subprocess.run([python, "-c", f"import {library}"], capture_output=True, text=True)
        assert f"No module named '{library}'" in missing.stderr
    return programs


def clean() -> dict[str, str]:
    """The environment without what leads to the checkout, or to a store."""
    hidden = ("PRUNEPOOL_", "PYTHONPATH", "PIP_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of a user who has no models yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # others' has conversions in it
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_the_packaged_models_are_those_of_the_repository(root: Path) -> None:
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for source, inside in build["targets"]["wheel"]["force-include"].items():
        link = root / "service" / inside
        assert link.is_symlink(), f"{link} stands for {source} in a checkout"
        assert link.resolve() == (root / source).resolve()
    linked = {path.name for path in (root / "service/prunepool/packaged_models").iterdir()}
    embedded = {path.parent.name for path in (root / "model_store").glob("*/README.md")}
    assert {Path(source).name for source in build["targets"]["wheel"]["force-include"]} == linked == embedded


def test_the_wheel_works_alone(root: Path, elsewhere: Path, folder: Path, start: Start) -> None:
    def prunepool(*arguments: str) -> str:
        command = [str(elsewhere / "prunepool"), *arguments]
        return subprocess.run(
            command, cwd=folder, env=clean(), check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    models = json.loads(prunepool("models", "list", "--json"))
    assert {model["name"] for model in models} == {
        path.parent.name for path in (root / "model_store").glob("*/README.md")
    }
    for model in models:
        assert model["packaged"]
        assert Path(model["folder"]).is_relative_to(elsewhere.parent)

    shutil.copy(root / "docs/images/sample.jpg", folder / "photo.jpg")
    classify = ("classify", "--json", "--reduction-ratio", "0.5", "--dtype", "int8", "photo.jpg")
    with ThreadPoolExecutor(1) as pool:
        classifying = pool.submit(prunepool, *classify)
        with start(
            "--model",
            Settings().model,
            "--max-batch-size",
            "1",
            "--dtype",
            "int8",
            folder=folder,
            program=elsewhere / "prunepool",
        ) as server:
            assert httpx.get(server.url, timeout=60).status_code == 200, "the page"
            image = (folder / "photo.jpg").read_bytes()
            ask = {"url": f"{server.url}/classify", "params": {"reduction_ratio": "0.5"}, "content": image}
            served = httpx.post(**ask, timeout=60).json()
        classified = json.loads(classifying.result())
    assert served["predictions"][0]["label"] == "golf ball"
    assert [p["label"] for p in classified["predictions"]] == [p["label"] for p in served["predictions"]]
    assert sorted(path.name for path in folder.iterdir()) == ["photo.jpg"], "they leave nothing behind"


#: What a user may ask for and has no PyTorch for, and how the answer begins.
WITHOUT_TORCH = {
    "train --name mine --images . --labels folders deit_tiny_imagenette": "train needs PyTorch",
    "calibrate deit_tiny_imagenette --images .": "calibrate needs PyTorch",
    "evaluate deit_tiny_imagenette --images .": "evaluate without --url needs PyTorch",
    "benchmark": "benchmark without --url needs PyTorch",
    "models add weights.pth --name mine --architecture deit_tiny_patch16_224": "models add needs PyTorch",
    "models pull deit_small_patch16_224.fb_in1k": "models pull needs PyTorch",
    "classify photo.jpg --dtype float32": "deit_tiny_imagenet1k in float32, which is compiled in int8, needs",
    "serve --port 0 --device cuda": "device must be auto or cpu without PyTorch",
}

#: Runs command lines in one interpreter, and prints the status of each.
COMMANDS = """
import shlex, sys
from prunepool import cli
for line in sys.argv[1:]:
    status = cli.run(shlex.split(line))
    print(status, flush=True)
try:
    from prunepool import load_model
except Exception as error:
    sys.stderr.write(f"{error}\\n")
"""


def test_what_needs_torch_says_so_in_one_line(root: Path, elsewhere: Path, folder: Path) -> None:
    (folder / "weights.pth").touch()
    shutil.copy(root / "docs/images/sample.jpg", folder / "photo.jpg")
    command = [str(elsewhere / "python"), "-c", COMMANDS, *WITHOUT_TORCH]
    done = subprocess.run(command, cwd=folder, env=clean(), check=True, capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert len(said) == len(WITHOUT_TORCH) + 1, done.stderr
    for line, answer in zip(said, [*WITHOUT_TORCH.values(), "load_model needs PyTorch"], strict=True):
        assert line.removeprefix("prunepool: ").startswith(answer)
        assert 'pip install "prunepool[' in line
    assert done.stdout.split() == ["1"] * (len(WITHOUT_TORCH) - 1) + ["2"]
