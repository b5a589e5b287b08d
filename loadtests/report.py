"""Writes the report of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from prunepool.lab.environment import in_words
from prunepool.processor import kind, summary


def save(report: Mapping[str, Any], path: Path) -> None:
    """Write a report as JSON and say on which machine it was measured; create the folder if needed.

    A report of another kind of processor keeps its place: this one is then written beside it.
    """
    if "environment" in report:
        print(f"measured on {in_words(report['environment'])}", file=sys.stderr)
        if _of_another_kind(path, report):
            path = path.with_stem(f"{path.stem}-{kind()}")
            print(f"written to {path}: the other one is of another kind of processor", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")


def _of_another_kind(path: Path, report: Mapping[str, Any]) -> bool:
    """Whether a path has a report that was measured with other instructions."""
    try:
        there = orjson.loads(path.read_bytes())["environment"]["instructions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return summary(there) != summary(report["environment"]["instructions"])


def without(folder: str | None, flags: Iterable[str]) -> list[str]:
    """Return flags for a report, without the path of a temporary folder."""
    return [flag.replace(folder, "…") if folder else flag for flag in flags]
