"""What a manifest says of a compiled model, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunepool.errors import ManifestInvalid, WeightsInvalid
from prunepool.store import ModelStore
from prunepool.store.manifest_file import parse, render
from prunepool.store.model import sha256_of

PACKAGED = ModelStore(Path(__file__).parents[2] / "model_store")
NAME = "deit_tiny_imagenette"


def document() -> dict[str, Any]:
    """A manifest of a compiled model."""
    plain = json.loads(render(PACKAGED.open(NAME).manifest))
    files = {name: {"file": f"ppt.{name}", "sha256": "a" * 64} for name in ("xml.gz", "bin")}
    plain["compiled"] = {
        "openvino": "2026.4.1",
        "source_sha256": plain["weights"]["sha256"],
        "passes": [
            {
                "weights": "int8",
                "method": "ppt",
                "blocks": [3, 6, 9],
                "graph": files["xml.gz"],
                "constants": files["bin"],
            }
        ],
        "reference": {"file": "reference.safetensors", "sha256": "b" * 64, "photos": "ab"},
    }
    return dict(plain)


def parsed(document: dict[str, Any]) -> Any:
    return parse(json.dumps(document).encode(), "m/model.json")


def test_it_survives_writing_and_reading() -> None:
    manifest = parsed(document())
    assert manifest.compiled.formats == ("int8",)
    assert [one.file for one in manifest.compiled.files()] == [
        "ppt.xml.gz",
        "ppt.bin",
        "reference.safetensors",
    ]
    assert parse(render(manifest), "m") == manifest


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["compiled"].update(source_sha256="c" * 64), "compiled.source_sha256 must be"),
        (lambda d: d.pop("geometry"), "compiled needs a geometry"),
        (lambda d: d["compiled"]["passes"][0].update(method="magic"), "must be one of ppt"),
        (lambda d: d["compiled"]["passes"][0]["graph"].update(file="../ppt.xml.gz"), r"file is '\.\./ppt"),
        (lambda d: d["compiled"]["passes"][0]["graph"].update(file="ppt.so"), "file is 'ppt.so'"),
        (
            lambda d: d["compiled"]["passes"][0]["graph"].update(file="ppt.bin", sha256="d" * 64),
            "one sha256, and another name",
        ),
        (lambda d: d["compiled"]["passes"].append(d["compiled"]["passes"][0]), "passes must differ"),
        (lambda d: d["compiled"].update(passes=[]), "at least 1"),
    ],
)
def test_what_cannot_be_served_is_refused(change: Change, message: str) -> None:
    broken = document()
    change(broken)
    with pytest.raises(ManifestInvalid, match=message):
        parsed(broken)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store with a model whose compiled files say nothing."""
    folder = tmp_path / NAME
    folder.mkdir()
    made = document()
    weights = PACKAGED.open(NAME).weights_path
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    for part in ("graph", "constants"):
        file = made["compiled"]["passes"][0][part]
        (folder / file["file"]).write_text(part)
        file["sha256"] = sha256_of(folder / file["file"])
    del made["compiled"]["reference"]
    (folder / "model.json").write_text(json.dumps(made))
    return ModelStore(tmp_path)


def test_its_files_are_verified_with_the_weights(store: ModelStore) -> None:
    stored = store.verify(NAME)
    assert stored.manifest.compiled is not None
    file = stored.manifest.compiled.passes[0].constants
    assert stored.read_compiled(file) == b"constants"
    (stored.folder / file.file).write_text("constant")
    with pytest.raises(WeightsInvalid, match=r"ppt\.bin: has sha256 \w+, but model.json records"):
        store.verify(NAME)
    with pytest.raises(WeightsInvalid, match=r"ppt\.bin: has sha256 \w+, but model.json records"):
        stored.read_compiled(file)
    (stored.folder / file.file).unlink()
    with pytest.raises(WeightsInvalid, match=r"ppt\.bin: the weights of .* are not there"):
        store.verify(NAME)
