"""What a run showed, in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson


def save(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON, in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def without(folder: str | None, flags: Iterable[str]) -> list[str]:
    """Flags as they are worth keeping: a temporary folder in them, if there is one, is of this run alone."""
    return [flag.replace(folder, "…") if folder else flag for flag in flags]
