"""The file `model.json`: reading it, writing it, and saying in one line what is wrong with it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunepool.errors import ManifestInvalid
from prunepool.store.manifest import Manifest

FILE_NAME = "model.json"


def parse(document: bytes, source: str) -> Manifest:
    """Read a manifest.

    Args:
        document: the JSON.
        source: its path, for the message.

    Raises:
        ManifestInvalid: not JSON, or not what a manifest must be; one line with file, key, value and limit.
    """
    try:
        return Manifest.model_validate_json(document, strict=True)
    except ValidationError as error:
        raise ManifestInvalid(f"{source}: {explain(error)}") from error


def read(path: Path) -> Manifest:
    """Read a manifest from its file.

    Raises:
        ManifestInvalid: it cannot be read, or :func:`parse` refuses it.
    """
    try:
        document = path.read_bytes()
    except OSError as error:
        raise ManifestInvalid(f"{path}: cannot be read ({error.strerror})") from error
    return parse(document, str(path))


def render(manifest: Manifest) -> bytes:
    """The JSON of a manifest, as it stands in `model.json`.

    Raises:
        ManifestInvalid: a value that was put in past validation (`model_copy(update=…)`).
    """
    text = manifest.model_dump_json(indent=2, exclude_none=True) + "\n"
    document = text.encode()
    parse(document, f"{manifest.name}/{FILE_NAME}")
    return document


def write(manifest: Manifest, folder: Path) -> None:
    """Write `model.json` into a folder, in one step: a reader sees the old one or the new one.

    Raises:
        ManifestInvalid: see :func:`render`.
        OSError: no space, no permission.
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
    """A validation error in one line: the first problem's key, value and limit, and how many there are."""
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
        return f"{limit}{more}"  # of several keys, which it names
    value = repr(first["input"])
    shown = value if len(value) <= 100 else value[:100] + "…"
    return f"{key or 'the document'} is {shown}: {limit[:1].lower()}{limit[1:]}{more}"


def _key(location: Sequence[str | int]) -> str:
    """`weights.sha256`, `labels[3]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
