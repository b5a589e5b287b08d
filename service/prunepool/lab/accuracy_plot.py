"""Accuracy against cost: one curve a method, with its confidence band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prunepool.lab.evaluate import DENSE_ROW, DIAL, Row

#: Colours that stay apart for colour-blind eyes (Okabe and Ito), and a mark for each curve.
_STYLES = {
    DIAL: ("#000000", "o"),
    "served": ("#000000", "o"),
    "ppt": ("#d55e00", "s"),
    "fuse": ("#0072b2", "D"),
    "pool": ("#009e73", "^"),
    "prune": ("#cc79a7", "v"),
    "tome": ("#56b4e9", "<"),
    "topk": ("#e69f00", ">"),
}
_NAMES = {
    DIAL: "this model's dial",
    "served": "the server",
    "ppt": "PPT",
    "fuse": "fuse (ours)",
    "pool": "pool only",
    "prune": "prune only",
    "tome": "ToMe",
    "topk": "top-k",
}


def draw(rows: Sequence[Row], path: Path, *, title: str) -> None:
    """Draw agreement with the dense model, and what is lost in points, against GMACs.

    Args:
        rows: of an evaluation; the dense one among them.
        path: of the PNG.
        title: over the panels.
    """
    dense = next(row for row in rows if row.method == DENSE_ROW)
    others = [row for row in rows if row.method != DENSE_ROW and row.escalate_below is None]
    with mpl.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "0.92",
            "axes.axisbelow": True,
        }
    ):
        labelled = dense.figures.top1 is not None
        figure = Figure(figsize=(10 if labelled else 5.4, 4.2), layout="constrained")
        axes = figure.subplots(1, 2 if labelled else 1, squeeze=False)[0]
        panels = [("agreement", 100.0, "same answer as the dense model, %")]
        if labelled:
            panels.append(("drop", 1.0, "top-1 lost against the dense model, points"))
        for axis, (name, scale, caption) in zip(axes, panels, strict=True):
            for method, found in groupby(others, key=lambda row: row.method):
                _curve(axis, method, [*found, dense], name, scale)
            axis.set_xlabel("GMACs per image")
            axis.set_ylabel(caption)
            axis.xaxis.set_major_locator(MaxNLocator(8))
        if labelled:
            axes[1].axhline(0, color="0.4", linewidth=0.8)
            axes[1].invert_yaxis()  # better is up, as on the left
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=8, frameon=False
        )
        figure.suptitle(f"{title}; {dense.figures.images} images, bands: 95 % bootstrap intervals")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _curve(axis: Any, method: str, rows: Sequence[Row], name: str, scale: float) -> None:
    ordered = sorted(rows, key=lambda row: row.gmacs)
    colour, mark = _STYLES[method]
    ours = method in (DIAL, "served")
    cost = [row.gmacs for row in ordered]
    ends: list[Mapping[str, tuple[float, float]]] = [row.figures.intervals for row in ordered]
    axis.fill_between(
        cost,
        [scale * end[name][0] for end in ends],
        [scale * end[name][1] for end in ends],
        color=colour,
        alpha=0.13 if ours else 0.05,
        linewidth=0,
    )
    axis.plot(
        cost,
        [scale * getattr(row.figures, name) for row in ordered],
        color=colour,
        marker=mark,
        markersize=5 if ours else 4,
        linewidth=2.2 if ours else 1.2,
        label=_NAMES[method],
        zorder=3 if ours else 2,
    )
