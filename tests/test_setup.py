"""`make setup` and `make runtime`: which interpreter they take, and that what they install is what is locked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

FAKE_UV = """#!/bin/sh
echo "index=$UV_DEFAULT_INDEX $*" >> "$CALLS"
"""


@dataclass(frozen=True)
class Made:
    """What a `make` came to, and the calls of uv and pip in it."""

    status: int
    out: str
    calls: tuple[str, ...]


Make = Callable[..., Made]


@pytest.fixture
def make(root: Path, tmp_path: Path) -> Make:
    """Runs `make` in a checkout of its own, where uv is a script that notes how it was called."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    (tmp_path / "docker").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements-dev.lock", "docker/cpu.lock"):
        shutil.copy(root / name, tmp_path / name)
    uv = tmp_path / "uv"
    uv.write_text(FAKE_UV)
    uv.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()

    def _make(*variables: str, target: str = "setup", **environment: str) -> Made:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "MAKE"))}
        done = subprocess.run(
            ["make", target, f"UV={uv}", *variables],
            cwd=tmp_path,
            env={**inherited, "PIP_CONFIG_FILE": os.devnull, "CALLS": str(calls), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Made(done.returncode, done.stdout, tuple(calls.read_text().splitlines()))

    return _make


def test_what_is_locked_is_installed_with_its_hashes(make: Make, tmp_path: Path) -> None:
    made = make(f"PYTHON={sys.executable}", PIP_INDEX_URL="https://index.example/simple")
    assert made.status == 0, made.out
    assert made.out.startswith("Making .venv with Python 3.")
    index, into = "index=https://index.example/simple", "pip install --python .venv/bin/python"
    assert made.calls == (
        f"{index} {into} --require-hashes -r requirements-dev.lock",
        f"{index} {into} --quiet --no-deps --no-build-isolation --editable .",
    )
    assert made.out.endswith("Set up: .venv/bin/prunepool\n")
    assert make(f"PYTHON={sys.executable}").calls == made.calls, "once is enough"
    os.utime(tmp_path / ".venv" / ".installed", (0, 0))  # older than the lock
    again = make(f"PYTHON={sys.executable}", UV_DEFAULT_INDEX="https://other.example/simple")
    assert "Making .venv" not in again.out
    assert again.calls[2].startswith(f"index=https://other.example/simple {into} --require-hashes "), (
        "uv's own wins"
    )

    (tmp_path / "nothing").mkdir()
    os.utime(tmp_path / ".venv" / ".installed", (0, 0))  # older than the lock
    alone = make("INSTALLER=pip", PIP_NO_INDEX="1", PIP_FIND_LINKS="nothing")
    assert alone.status != 0, "there is nowhere to get it from"
    assert "No matching distribution found for " in alone.out
    assert alone.calls == again.calls, "pip does it alone"


def test_the_runtime_is_installed_without_torch_and_may_be_followed_by_the_rest(
    make: Make, tmp_path: Path
) -> None:
    python = (
        tmp_path / "python"
    )  # makes environments without pip, which takes longest and which uv does without
    python.write_text(
        f'#!/bin/sh\n[ "$2" = venv ] && set -- "$@" --without-pip\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    made = make(f"PYTHON={python}", target="runtime")
    assert made.status == 0, made.out
    assert "no PyTorch" in made.out
    locks = [re.findall(r"\S+\.lock|--editable", call) for call in made.calls]
    assert locks == [["docker/cpu.lock"], ["--editable"]]
    assert make(target="runtime").calls == made.calls, "once is enough"
    assert "cpu.lock" not in make("--dry-run", target="serve").out, "it serves what is there"
    assert make().status == 0
    assert "requirements-dev.lock" in make().calls[2]
    os.utime(tmp_path / ".venv" / ".runtime", (0, 0))  # older than its lock, which does not matter any more
    served = make("--dry-run", target="serve")
    assert ".lock" not in served.out
    assert "prunepool serve" in served.out


def test_an_interpreter_that_is_not_supported_is_named(make: Make, tmp_path: Path) -> None:
    old = tmp_path / "python3.10"
    old.write_text("#!/bin/sh\n")
    old.chmod(0o755)
    made = make(f"PYTHON={old}")
    assert made.status != 0
    assert (
        f"prunepool needs Python 3.11 to 3.14 on the PATH, or PYTHON=/path/to/python; {old} is none"
        in made.out
    )
    assert not (tmp_path / ".venv").exists()


def test_the_lock_has_the_installer_itself(root: Path) -> None:
    """The recipe takes this entry out of the lock where the machine has no uv."""
    lock = (root / "requirements-dev.lock").read_text()
    entry = re.search(
        r"^uv==[\d.]+ \\\n(?:    --hash=sha256:[0-9a-f]{64} \\\n)*    --hash=sha256:[0-9a-f]{64}$", lock, re.M
    )
    assert entry is not None
    sed = re.search(r"<\((sed -n .*?) requirements-dev\.lock\)", (root / "Makefile").read_text())
    assert sed is not None
    command = f"{sed[1].replace('$$', '$')} requirements-dev.lock"
    assert subprocess.check_output(["bash", "-c", command], cwd=root, text=True).strip() == entry[0]


def test_everything_speaks_of_the_same_versions_of_python(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    classified = re.findall(
        r"Programming Language :: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.M
    )
    supported = SpecifierSet(project["requires-python"])
    assert classified == [v for v in (f"3.{minor}" for minor in range(30)) if supported.contains(v)]
    said = f"Python {classified[0]} to {classified[-1]}"
    for page in ("Makefile", "README.md", "docs/quickstart.md"):
        assert said in (root / page).read_text(), page
    looked_for = re.search(r"foreach p,(.*?) python3,", (root / "Makefile").read_text())
    assert looked_for is not None
    assert sorted(looked_for[1].split()) == [f"python{version}" for version in classified]
