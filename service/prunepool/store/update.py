"""Writing into a manifest what took long to find out, while others may change the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from prunepool.errors import ManifestInvalid, ModelError
from prunepool.store import manifest_file
from prunepool.store.folders import copy_folder
from prunepool.store.manifest import Manifest
from prunepool.store.manifest_file import FILE_NAME
from prunepool.store.model import StoredModel

#: What every measurement and every conversion of a model depends on.
_NETWORK = (
    "architecture",
    "network",
    "input_size",
    "mean",
    "std",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "weights",
)


def updated(
    now: StoredModel, measured: Manifest, found: Mapping[str, object], depends_on: Collection[str]
) -> Manifest:
    """Return the manifest of a model with what was found out; what others have changed in it meanwhile stays.

    Args:
        now: the model as it is.
        measured: its manifest when the work began.
        found: values of the manifest.
        depends_on: further values of the manifest that must not have changed.

    Raises:
        ModelError: the model has been changed in a way that makes what was found out worthless.
        ManifestInvalid: the name would change.
    """
    name = found.get("name", now.manifest.name)
    if name != now.manifest.name:
        raise ManifestInvalid(
            f"{now.folder / FILE_NAME}: name is {name!r}: it must stay {now.manifest.name!r}"
        )
    for key in (*_NETWORK, *depends_on):
        if getattr(now.manifest, key) != getattr(measured, key):
            raise ModelError(
                f"{now.folder / FILE_NAME}: {key} has been changed since the work began, so nothing was written; "
                "run the command again"
            )
    return now.manifest.model_copy(update=dict(found))


def complete(now: StoredModel, manifest: Manifest, staged: Path) -> None:
    """Copy into a folder what a model has beside what is there already and what its new manifest no longer names.

    Raises:
        ModelError: a file of the model cannot be read.
        OSError: a copy cannot be written.
    """
    there = {path.name for path in staged.iterdir()}
    copy_folder(now.folder, staged, leave_out=there | _dropped(now, manifest))


def move_in(now: StoredModel, manifest: Manifest, staged: Path | None) -> None:
    """Move files into the folder of a model, its manifest last, and delete what it no longer names.

    Raises:
        OSError: one cannot be moved.
    """
    for path in () if staged is None else tuple(staged.iterdir()):
        path.replace(now.folder / path.name)
    manifest_file.write(manifest, now.folder)
    for name in _dropped(now, manifest):
        (now.folder / name).unlink(missing_ok=True)


def _dropped(now: StoredModel, manifest: Manifest) -> set[str]:
    """Files of a compiled model that its new manifest no longer names."""
    return _compiled(now.manifest) - _compiled(manifest)


def _compiled(manifest: Manifest) -> set[str]:
    return set() if manifest.compiled is None else {one.file for one in manifest.compiled.files()}
