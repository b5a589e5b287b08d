"""Puts kustomize's overlays together as far as ours need it; whatever else a file asks for is an error.

The program itself is not a Python package. What is done here: resources, components, a namespace, and strategic
merges, in which maps merge and lists do by the names of their items.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "resources", "components", "patches", "namespace"}
_CLUSTER_WIDE = {"Namespace"}
#: Lists that merge by their items' names; kustomize knows more, and replaces all others.
_BY_NAME = {"containers", "env", "volumes", "volumeMounts"}


def read(path: Path) -> Object:
    """A file with one object."""
    found: Object = yaml.safe_load(path.read_text())
    return found


def identity(one: Object) -> tuple[str, str, str]:
    return one["apiVersion"], one["kind"], one["metadata"]["name"]


def merged(base: Object, patch: Object) -> Object:
    result = copy.deepcopy(base)
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif key in _BY_NAME and key in result:
            ours = {item["name"]: item for item in result[key]}
            theirs = {item["name"]: item for item in value}
            result[key] = [
                merged(ours.get(name, {}), theirs.get(name, {})) for name in dict.fromkeys((*theirs, *ours))
            ]
        else:
            result[key] = copy.deepcopy(value)
    return result


def assemble(folder: Path, so_far: list[Object] | None = None) -> list[Object]:
    asked = read(folder / "kustomization.yaml")
    assert asked.keys() <= _KNOWN, f"{folder}: the test cannot do {asked.keys() - _KNOWN}"
    objects = list(so_far or ())
    for name in asked.get("resources", ()):
        path = folder / name
        objects += assemble(path) if path.is_dir() else [read(path)]
    for name in asked.get("components", ()):
        objects = assemble(folder / name, objects)
    for entry in asked.get("patches", ()):
        assert entry.keys() == {"path"}
        patch = read(folder / entry["path"])
        matching = [i for i, one in enumerate(objects) if identity(one) == identity(patch)]
        assert len(matching) == 1, f"{folder}: {entry['path']} matches {len(matching)} objects"
        objects[matching[0]] = merged(objects[matching[0]], patch)
    for one in objects:
        if "namespace" in asked and one["kind"] not in _CLUSTER_WIDE:
            one["metadata"]["namespace"] = asked["namespace"]
    return objects


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "docker" / "kubernetes"


@pytest.fixture
def built(folder: Path) -> Callable[[str], dict[str, Object]]:
    """The objects of an overlay, by kind."""

    def build(name: str) -> dict[str, Object]:
        objects = assemble(folder / name)
        assert len({identity(one) for one in objects}) == len(objects)
        return {one["kind"]: one for one in objects}

    return build
