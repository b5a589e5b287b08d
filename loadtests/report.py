"""Writes the report of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from prunepool.lab.environment import in_words


def save(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON and say on which machine it was measured; create the folder if needed."""
    if "environment" in report:
        print(f"measured on {in_words(report['environment'])}", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def without(folder: str | None, flags: Iterable[str]) -> list[str]:
    """Return flags for a report, without the path of a temporary folder."""
    return [flag.replace(folder, "…") if folder else flag for flag in flags]
