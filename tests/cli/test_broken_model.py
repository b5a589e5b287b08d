"""A model that cannot be loaded is one line, whatever is wrong with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
MODEL = "deit_tiny_imagenette"


@pytest.fixture
def model(folder: Path, root: Path) -> Path:
    """A copy of the small embedded model in the store of the working directory, without compiled passes."""
    copy = folder / "model_store" / MODEL
    copy.mkdir(parents=True)
    for name in ("model.json", "model.safetensors"):
        (copy / name).write_bytes((root / "model_store" / MODEL / name).read_bytes())
    (folder / "one.jpg").write_bytes(b"one")
    change(copy)
    return copy


def change(model: Path, **values: object) -> None:
    document = json.loads((model / "model.json").read_text())
    for optional in ("geometry", "compiled"):
        document.pop(optional, None)
    (model / "model.json").write_text(json.dumps(document | values))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["one"] * 9}, "head.weight"),
        ({"architecture": "deit_small_patch16_224"}, "deit_tiny_imagenette"),
        ({"architecture": "deit_huge_patch7_7"}, "it has no such architecture"),
        ({"input_size": 384}, "the profile makes no dial: ratio must be 59/576"),
        ({"crop_pct": 0}, "crop_pct is 0"),
        ({"reduction": {"method": "nope"}}, "reduction.method is 'nope'"),
        ({"weights": {"sha256": "0" * 64, "dtype": "float16", "parameters": 5526346}}, "has sha256 "),
        (
            {"weights": {"sha256": "abc", "dtype": "float16", "parameters": 5526346}},
            "weights.sha256 is 'abc'",
        ),
    ],
    ids=str,
)
def test_a_manifest_of_other_weights(run: Run, model: Path, changes: dict[str, Any], said: str) -> None:
    change(model, **changes)
    assert_one_line(run("classify", "one.jpg", "--model", MODEL), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the weights of deit_tiny_imagenette are not there"),
        (b"", "has sha256 "),
        (b"recorded as it is", "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "has sha256 "),
    ],
)
def test_weights_that_are_no_weights(run: Run, model: Path, content: bytes | None, said: str) -> None:
    (model / "model.safetensors").unlink()
    if content is not None:
        (model / "model.safetensors").write_bytes(content)
    if content == b"recorded as it is":
        digest = hashlib.sha256(content).hexdigest()
        change(model, weights={"sha256": digest, "dtype": "float16", "parameters": 5526346})
    assert_one_line(run("classify", "one.jpg", "--model", MODEL), said)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe{\0}\0", b"\xff"])
def test_a_manifest_that_is_none(run: Run, model: Path, content: bytes) -> None:
    (model / "model.json").write_bytes(content)
    assert_one_line(run("classify", "one.jpg", "--model", MODEL), "model.json: ")


def assert_one_line(result: Any, said: str) -> None:
    assert (result.status, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert line.startswith("prunepool: ")
    assert said in line
    assert len(line) < 600
