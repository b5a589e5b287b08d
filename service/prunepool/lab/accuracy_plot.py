"""Plot accuracy against cost: one curve for each method, with its confidence band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from prunepool.lab.accuracy_row import DENSE_ROW, AccuracyRow
from prunepool.lab.evaluate import DIAL
from prunepool.reduction.methods import METHODS

#: Colours that colour-blind people can tell apart (Okabe and Ito), and markers; methods take them in turn, and with
#: each turn another line.
_STYLES = (
    ("#d55e00", "s"),
    ("#cc79a7", "v"),
    ("#009e73", "^"),
    ("#0072b2", "D"),
    ("#56b4e9", "<"),
    ("#e69f00", ">"),
    ("#f0e442", "P"),
)
_LINES = ("-", "--", ":", "-.")
#: Curves that are not methods: the model's own dial, and a server.
_OWN = {DIAL: "this model's dial", "served": "the server"}
_OWN_STYLE = ("#000000", "o", "-")


def _style(method: str) -> tuple[str, str, str]:
    """Colour, marker and line of a curve."""
    if method in _OWN:
        return _OWN_STYLE
    turn, place = divmod(list(METHODS).index(method), len(_STYLES))
    return *_STYLES[place], _LINES[turn % len(_LINES)]


def draw(rows: Sequence[AccuracyRow], path: Path, *, title: str) -> None:
    """Draw agreement with the dense model, and the loss in points, against GMACs.

    Args:
        rows: of an evaluation, the dense one included.
        path: of the PNG file.
        title: above the panels.
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


def _curve(axis: Any, method: str, rows: Sequence[AccuracyRow], name: str, scale: float) -> None:
    ordered = sorted(rows, key=lambda row: row.gmacs)
    colour, mark, line = _style(method)
    ours = method in _OWN
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
        linestyle=line,
        markersize=5 if ours else 4,
        linewidth=2.2 if ours else 1.2,
        label=_OWN[method] if ours else METHODS[method].title,
        zorder=3 if ours else 2,
    )
