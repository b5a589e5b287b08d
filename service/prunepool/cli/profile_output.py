"""Formats a model's profile for people: a line for each ratio, and what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunepool.cli.terminal import shown
from prunepool.store import ProfilePoint

#: Shares, shown in percent, with their interval.
_SHARES = ("top1", "top5", "agreement")
#: What a table shows of a point, in this order; anything else that a profile holds comes after it.
_FIRST = ("ratio", "format", "gmacs", "method", *_SHARES, "drop", "kl", "images", "speed", "plan")
#: Parts of a point that have their place elsewhere.
_ELSEWHERE = ("intervals", "blocks", "removed", "thresholds", "formats", "validation")
_MEANING = (
    "top1, top5: right, in percent; agreement: same best class as the dense model's; drop: points of top-1 lost, "
    "or of agreement without labels; kl: divergence from the dense model's probabilities, in nats; speed: against "
    "the dense model; plan: tokens removed at each block; ranges are 95 % intervals"
)


def profile_parts(profile: tuple[ProfilePoint, ...]) -> list[RenderableType]:
    """The tables and lines that show a profile."""
    points = [point.model_dump(exclude_none=True) for point in profile]
    parts: list[RenderableType] = [_table("profile", [_cells(point) for point in points]), _MEANING]
    formats = [
        {"ratio": words(point["ratio"]), "format": name, **{key: _cell(key, one[key], {}) for key in one}}
        for point in points
        for name, one in point.get("formats", {}).items()
    ]
    if formats:
        parts += ["", _table("by number format, against float32 at the same ratio", formats)]
    for point in points:
        if (seen := point.get("validation")) is not None:
            figures = ", ".join(f"{key} {_cell(key, seen[key], {})}" for key in seen if key in _SHARES)
            where = f"{words(seen.get('images', ''))} {seen.get('of', 'images')}"
            parts += ["", f"at ratio {point['ratio']:g} on {where}: {figures}"]
    return parts


def _cells(point: Mapping[str, Any]) -> dict[str, str]:
    """A point as text by column."""
    intervals = point.get("intervals", {})
    found = {key: _cell(key, value, intervals) for key, value in point.items() if key not in _ELSEWHERE}
    if "removed" in point:
        pairs = zip(point.get("blocks", ()), point["removed"], strict=False)
        found["plan"] = " ".join(f"{block}:{removed}" for block, removed in pairs)
        limits = point.get("thresholds", ())
        if any(limits):
            found["thresholds"] = " ".join(f"{limit:.2g}" for limit in limits)
    return found


def _cell(key: str, value: Any, intervals: Mapping[str, Any]) -> str:
    """A value with its interval, if it has one."""
    if key == "speed":
        where = f"{value['device']}, {value['dtype']}, batch {value['batch']}"
        return f"×{value['speedup']:.2f} ({where})"
    if key == "kl":
        return f"{value:.2g}"
    scale = 100 if key in _SHARES else 1
    text = f"{value:.1%}".replace("%", " %") if key in _SHARES else words(value)
    ends = intervals.get(key)
    if ends is None or ends[0] == ends[1]:
        return text
    return f"{text} ({scale * ends[0]:.4g} to {scale * ends[1]:.4g})"


def words(value: object) -> str:
    """Any JSON value as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(words(item) for item in value)
    return str(value)


def _table(title: str, rows: list[dict[str, str]]) -> Table:
    given = dict.fromkeys(key for row in rows for key in row)
    columns = [key for key in _FIRST if key in given] + [key for key in given if key not in _FIRST]
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in columns:
        table.add_column(Text(shown(column)))
    for row in rows:
        table.add_row(*(Text(shown(row.get(column, ""))) for column in columns))
    return table
