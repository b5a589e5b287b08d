"""Plot images/s against the reduction ratio, with the bound set by the multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from prunepool.lab.environment import in_words


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw a benchmark's report as a PNG, one panel for each dtype and batch size.

    Args:
        report: from :meth:`prunepool.lab.benchmark.Benchmark.report`.
        path: of the PNG file.
    """
    panels = [list(rows) for _, rows in groupby(report["rows"], key=lambda r: (r["dtype"], r["batch"]))]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, rows in zip(axes, panels, strict=True):
            _panel(axis, rows)
        figure.suptitle(f"{report['architecture']}, {report['method']}, {in_words(report['environment'])}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _panel(axis: Any, rows: list[Mapping[str, Any]]) -> None:
    with_ratio = [row for row in rows if row["ratio"] is not None]
    ours = [row for row in with_ratio if not row["candidate"].endswith("openvino")]
    converted = [row for row in with_ratio if row["candidate"].endswith("openvino")]
    rivals = [row for row in rows if row["bound"] is None]
    ratios = [row["ratio"] for row in ours]
    best = max(row["images_per_s"] for row in rivals) if rivals else ours[0]["images_per_s"]
    axis.plot(ratios, [best * row["bound"] for row in ours], "--", color="0.6", label="MAC bound")
    _curve(axis, ours, marker="o", color="#0b7285", label="prunepool")
    if converted:
        _curve(axis, converted, marker="s", color="#e67700", label="prunepool, by OpenVINO")
    axis.axhline(best, color="#c2255c", linewidth=1, label="best dense baseline")
    axis.set_title(f"{rows[0]['dtype']}, batch {rows[0]['batch']}")
    axis.set_xlabel("reduction ratio")
    axis.set_ylabel("images/s")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, loc="lower right")


def _curve(axis: Any, rows: list[Mapping[str, Any]], **style: str) -> None:
    """Images/s of one way to run the model, with its spread."""
    speeds = [row["images_per_s"] for row in rows]
    below = [row["images_per_s"] - row["low"] for row in rows]
    above = [row["high"] - row["images_per_s"] for row in rows]
    axis.errorbar([row["ratio"] for row in rows], speeds, yerr=[below, above], capsize=2, **style)
