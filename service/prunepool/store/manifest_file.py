"""The file `model.json`: reading it, writing it, and describing in one line what is wrong with it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunepool.errors import ManifestInvalid
from prunepool.files import read_regular
from prunepool.store.manifest import Manifest

FILE_NAME = "model.json"
#: Labels of 21,843 classes take under 2 MiB.
_MAX_BYTES = 64 << 20


def parse(document: bytes, source: str) -> Manifest:
    """Read a manifest.

    Args:
        document: the JSON.
        source: its path, for the message.

    Raises:
        ManifestInvalid: it is not JSON or not a valid manifest, or names a key twice; one line with file, key,
            value and limit.
    """
    try:
        manifest = Manifest.model_validate_json(document, strict=True)
    except ValidationError as error:
        raise ManifestInvalid(f"{source}: {explain(error)}") from error
    if not manifest.labels and manifest.geometry is None:
        raise ManifestInvalid(
            f"{source}: labels is []: one for each class, or a geometry of a network without any"
        )
    try:
        json.loads(document, object_pairs_hook=_each_key_once)
    except _NamedTwice as error:
        raise ManifestInvalid(f"{source}: {error} is there twice") from error
    return manifest


class _NamedTwice(Exception):
    """An object of a JSON document has a key twice: readers differ in which one they take."""


def _each_key_once(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _NamedTwice(key)
        seen.add(key)


def read(path: Path) -> Manifest:
    """Read a manifest from its file.

    Raises:
        ManifestInvalid: the file cannot be read, or :func:`parse` refuses it.
    """
    try:
        document = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise ManifestInvalid(f"{path}: cannot be read ({error.strerror})") from error
    return parse(document, str(path))


def render(manifest: Manifest) -> bytes:
    """The JSON of a manifest, as in `model.json`.

    Raises:
        ManifestInvalid: a value is invalid; `model_copy(update=…)` does not validate.
    """
    text = manifest.model_dump_json(indent=2, exclude_none=True) + "\n"
    document = text.encode()
    parse(document, f"{manifest.name}/{FILE_NAME}")
    return document


def write(manifest: Manifest, folder: Path) -> None:
    """Write `model.json` into a folder atomically: a reader sees the old or the new one.

    Raises:
        ManifestInvalid: see :func:`render`.
        OSError: the disk is full, or permission is missing.
    """
    document = render(manifest)
    draft = folder / f".{FILE_NAME}.{secrets.token_hex(4)}"
    try:
        with draft.open("xb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / FILE_NAME)
    finally:
        draft.unlink(missing_ok=True)


def explain(error: ValidationError) -> str:
    """Describe a validation error in one line: the first problem, and the number of others."""
    problems = error.errors(include_url=False)
    first: Mapping[str, Any] = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "json_invalid":
        return f"is not JSON: {first['ctx']['error']}"
    key = _key(first["loc"])
    if first["type"] == "missing":
        return f"{key} is missing{more}"
    if first["type"] == "extra_forbidden":
        return f"{key} is not a known key{more}"
    limit = first["msg"].removeprefix("Value error, ")
    if not key and first["type"] == "value_error":
        return f"{limit}{more}"  # the message names its keys itself
    value = repr(first["input"])
    shown = value if len(value) <= 100 else value[:100] + "…"
    return f"{key or 'the document'} is {shown}: {limit[:1].lower()}{limit[1:]}{more}"


def _key(location: Sequence[str | int]) -> str:
    """`weights.sha256`, `labels[3]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
