"""Formats the models of the store for `prunepool models`."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunepool.cli.profile_output import profile_parts, words
from prunepool.cli.terminal import say_table, shown
from prunepool.errors import PrunepoolError, WeightsInvalid
from prunepool.reduction.plan import PlanError, default_blocks, max_ratio
from prunepool.store import Manifest, ModelStore, StoredModel
from prunepool.store.profile import auto_limit
from prunepool.store.weights_check import PATCHES, depth_of

#: What is resized, in each crop mode.
_SIDES = {
    "center": "the short side",
    "squash": "both sides, which are squashed",
    "border": "the long side, with borders at the short one",
}


def stderr() -> Console:
    """Return a console on stderr."""
    return Console(stderr=True)


def row(store: ModelStore, name: str) -> dict[str, Any]:
    """Return a model as a flat record; only `name` and `error` if its manifest is invalid."""
    try:
        model = store.open(name)
    except PrunepoolError as error:
        return {"name": name, "error": error.detail}
    manifest = model.manifest
    weights = model.folder / manifest.weights.file
    return {
        "name": manifest.name,
        "architecture": manifest.architecture,
        "input_size": manifest.input_size,
        "classes": len(manifest.labels),
        "parameters": manifest.weights.parameters,
        "dtype": manifest.weights.dtype,
        "bytes": weights.stat().st_size if weights.is_file() else None,
        "licence": manifest.licence,
        "default_ratio": _default(manifest),
        "folder": str(model.folder),
        "packaged": model.packaged,
    }


def print_table(rows: list[dict[str, Any]], store: ModelStore) -> None:
    """The models as a table, and below it where store and packaged models are."""
    table = Table(box=None, header_style="bold")
    for title in ("NAME", "ARCHITECTURE"):
        table.add_column(title, overflow="fold")
    for title in ("INPUT", "CLASSES", "PARAMETERS", "SIZE"):
        table.add_column(title, justify="right")
    table.add_column("LICENCE")
    table.add_column("WHERE")
    for entry in rows:
        if "error" in entry:
            table.add_row(Text(shown(entry["name"])), Text(shown(entry["error"]), style="red"))
            continue
        table.add_row(
            Text(shown(entry["name"])),
            Text(shown(entry["architecture"])),
            f"{entry['input_size']}²",
            str(entry["classes"]),
            f"{entry['parameters'] / 1e6:.1f} M",
            "missing" if entry["bytes"] is None else f"{entry['bytes'] / 1e6:.0f} MB",
            Text(shown(entry["licence"])),
            "packaged" if entry["packaged"] else "store",
        )
    where = [f"store: {store.root}"]
    if any(entry.get("packaged") for entry in rows):
        where.append(f"packaged: {store.packaged} (read-only)")
    say_table(table, *where)


def preprocessing(manifest: Manifest) -> str:
    """How an image becomes the model's input, in words."""
    side = _SIDES[manifest.crop_mode]
    return (
        f"resized ({manifest.interpolation}) and cropped to {manifest.input_size}², "
        f"the crop {manifest.crop_pct:g} of {side}; mean {words(manifest.mean)}; std {words(manifest.std)}"
    )


def ratio_limit(model: StoredModel) -> float:
    """The largest reduction ratio that the model can do, rounded down to four places.

    Raises:
        WeightsInvalid: missing, or not those of a Vision Transformer.
    """
    shapes = model.shapes()
    kernel = shapes.get(PATCHES)
    if kernel is None:
        raise WeightsInvalid(f"{model.weights_path}: has no {PATCHES}")
    try:
        stages = len(model.manifest.reduction.blocks or default_blocks(depth_of(shapes)))
    except PlanError as error:
        raise WeightsInvalid(f"{model.weights_path}: {error}") from error
    patches = (model.manifest.input_size // kernel[-1]) ** 2
    return math.floor(max_ratio(patches, stages) * 1e4) / 1e4


def details(model: StoredModel) -> dict[str, Any]:
    """Return everything known about a model without running it."""
    return {
        "folder": str(model.folder),
        "max_reduction_ratio": ratio_limit(model),
        "bytes": model.weights_path.stat().st_size,
        "manifest": model.manifest.model_dump(mode="json", exclude_none=True),
    }


def compiled_row(model: StoredModel) -> dict[str, Any]:
    """Return what a compiled model consists of."""
    compiled = model.manifest.compiled
    assert compiled is not None
    return {
        "name": model.manifest.name,
        "folder": str(model.folder),
        "openvino": compiled.openvino,
        "weights": list(compiled.formats),
        "files": {one.file: (model.folder / one.file).stat().st_size for one in compiled.files()},
    }


def print_details(model: StoredModel) -> None:
    """Print everything known about a model."""
    manifest, reduction = model.manifest, model.manifest.reduction
    labels = ", ".join(manifest.labels[:10]) + (", …" if len(manifest.labels) > 10 else "")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for key, value in (
        ("name", manifest.name),
        ("folder", str(model.folder)),
        ("architecture", manifest.architecture),
        ("network", _network(manifest)),
        (
            "input",
            f"{manifest.input_size}², {manifest.crop_mode} crop {manifest.crop_pct}, {manifest.interpolation}",
        ),
        ("mean, std", f"{words(manifest.mean)}; {words(manifest.std)}"),
        ("classes", f"{len(manifest.labels)}: {labels}" if labels else "none: its output is an embedding"),
        ("parameters", f"{manifest.weights.parameters:,}"),
        (
            "weights",
            f"{manifest.weights.file}, {manifest.weights.dtype}, {model.weights_path.stat().st_size:,} bytes",
        ),
        ("sha256", manifest.weights.sha256),
        ("compiled", _compiled(manifest)),
        ("licence", manifest.licence),
        ("origin", manifest.origin),
        ("reduction ratio", f"default {_default(manifest)}, at most {ratio_limit(model)}"),
        ("auto at most", _auto_most(manifest)),
        ("method", reduction.method),
        ("blocks", "the method's own" if reduction.blocks is None else words(reduction.blocks)),
        ("thresholds", "the paper's" if reduction.thresholds is None else words(reduction.thresholds)),
    ):
        grid.add_row(key, Text(shown(value)))
    if manifest.profile is None:
        say_table(grid, "profile          not measured: `prunepool calibrate` does that")
    else:
        say_table(grid, "", *profile_parts(manifest.profile))


def _network(manifest: Manifest) -> str:
    """What the network has otherwise than its architecture, in words."""
    options = {} if manifest.network is None else manifest.network.model_dump(exclude_none=True)
    return ", ".join(f"{key} {value}" for key, value in options.items()) or "the architecture's own"


def _default(manifest: Manifest) -> float:
    """The ratio of requests that are many; none is taken of a model that was not measured."""
    return 0.0 if auto_limit(manifest.profile or ()) == 0 else manifest.reduction.default_ratio


def _auto_most(manifest: Manifest) -> str:
    """How far `auto` goes where nobody set a bound."""
    most = auto_limit(manifest.profile or ())
    if most == 0:
        return "0, for what it would lose was not measured"
    bounds = [one for one in (most, manifest.reduction.max_ratio) if one is not None]
    return str(min(bounds)) if bounds else "the same"


def _compiled(manifest: Manifest) -> str:
    """What a model is compiled in, in words."""
    if manifest.compiled is None:
        return "no"
    return f"{', '.join(manifest.compiled.formats)}, with OpenVINO {manifest.compiled.openvino}"
