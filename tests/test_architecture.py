"""Imports go along the arrows of docs/architecture.md, and nowhere else."""

from __future__ import annotations

import ast
import functools
import gc
import platform
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

PACKAGE = Path(__file__).resolve().parent.parent / "service" / "prunepool"

#: What each part may import of ours. The longest matching name counts.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "extras": {"errors"},
    "files": set(),
    "settings": {"settings_file"},
    "settings_file": {"files"},
    "metrics": set(),
    "queued_output": set(),
    "logs": {"queued_output"},
    "gpu": set(),
    "processor": set(),
    "machine": set(),
    "model_names": set(),
    "imaging": {"errors"},
    "store": {"errors", "files", "model_names", "reduction.methods", "reduction.plan"},
    "access": {"errors", "files"},
    "reduction": set(),
    "models": {"reduction", "store", "imaging", "errors", "files", "extras", "core.types"},
    "core": {"errors", "imaging", "metrics"},
    "backends": {
        "models",
        "processor",
        "reduction",
        "store",
        "errors",
        "extras",
        "core.backend",
        "core.formats",
        "core.types",
    },
    "transport": {"core", "errors", "imaging", "metrics"},
    "serving": {"core", "errors", "imaging", "machine", "metrics", "transport.client"},
    "testing": {"core", "imaging", "serving", "errors"},
    "tracing": {"core.model_info", "serving", "errors"},
    "api": {
        "access",
        "core.formats",
        "core.logits",
        "core.model_info",
        "errors",
        "logs",
        "metrics",
        "model_names",
        "serving",
        "settings",
    },
    "client": {"errors", "files"},
    "server": {
        "access",
        "api",
        "backends",
        "core",
        "errors",
        "extras",
        "gpu",
        "imaging",
        "logs",
        "machine",
        "metrics",
        "models",
        "processor",
        "queued_output",
        "serving",
        "settings",
        "store",
        "tracing",
        "transport",
    },
    "ray_app": {
        "access",
        "api",
        "errors",
        "logs",
        "machine",
        "metrics",
        "server",
        "serving",
        "settings",
        "store",
        "transport",
    },
    "lab": {"backends", "models", "reduction", "store", "imaging", "errors", "files", "client", "processor"},
    "cli": {"*"},
}

#: Heavy libraries, and who may import them at the top of a file.
HEAVY = {
    "torch": {"reduction", "models", "backends", "lab"},
    "timm": {"models", "backends", "lab"},
    "fastapi": {"api", "server", "ray_app"},
    "ray": {"ray_app"},
    "opentelemetry": {"tracing"},
    "zmq": {"transport", "server"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def part_of(module: str) -> str:
    return module.split(".")[0]


@functools.cache
def parsed(path: Path) -> ast.Module:
    # CPython 3.11 miscounts its recursion where a finaliser runs while it builds a tree (gh-106905).
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imports_of(path: Path, *, top_only: bool = False) -> set[str]:
    tree = parsed(path)
    found: set[str] = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    module = name_of(path)
    part = part_of(module)
    assert part in ARROWS, f"{part} is new: draw its arrows in docs/architecture.md and here"
    allowed = ARROWS[part] | {part}
    if "*" in allowed:
        return
    for name in imports_of(path):
        if not name.startswith("prunepool."):
            continue
        inner = name.removeprefix("prunepool.")
        fits = any(inner == a or inner.startswith(a + ".") for a in allowed)
        # `from prunepool.core import types` names the package as well as the module.
        fits |= any(a.startswith(inner + ".") for a in allowed)
        assert fits, f"{module} may not import {name}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    part = part_of(name_of(path))
    tops = {name.split(".")[0] for name in imports_of(path, top_only=True)}
    for library, owners in HEAVY.items():
        assert library not in tops or part in owners, f"{name_of(path)} imports {library} at its top"


@pytest.mark.parametrize(
    "path", [path for path in modules() if part_of(name_of(path)) == "backends"], ids=name_of
)
def test_a_backend_s_name_says_whether_it_needs_torch(path: Path) -> None:
    """Only what computes with PyTorch or CUDA imports torch, and what converts for OpenVINO."""
    names = ("torch_", "cuda_", "openvino", "dynamic_pass")
    imported = {name.split(".")[0] for name in imports_of(path)}
    assert "torch" not in imported or path.name.startswith(names)


def test_no_module_hides_outside_the_package() -> None:
    """A folder of Python at the root could shadow a library of the same name (docker)."""
    root = PACKAGE.parent.parent
    assert not (root / "__init__.py").exists()
    for folder in ("docker", "model_store"):
        assert not list((root / folder).rglob("*.py"))


def test_the_picture_names_every_part() -> None:
    picture = (PACKAGE.parent.parent / "docs" / "architecture.md").read_text()
    parts = {part_of(name_of(path)) for path in modules()}
    missing = [part for part in parts if f"{part}.py" not in picture and f"{part}/" not in picture]
    assert not missing, f"docs/architecture.md does not mention {missing}"


def test_this_interpreter_is_one_that_is_supported() -> None:
    project = tomllib.loads((PACKAGE.parent.parent / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(platform.python_version())
