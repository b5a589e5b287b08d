"""Plots speedups with their intervals and the claims."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_OURS, _CLAIM, _FAILED = "#0b7285", "0.55", "#c2255c"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw a report of validate.py as a PNG.

    Args:
        report: as it is written to speedups.json.
        path: of the picture.
    """
    dense = report["dense"]
    verdicts = report["verdicts"]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        ratios = [float(one["speedup"]["ratio"]) for one in verdicts]
        for one, ratio in zip(verdicts, ratios, strict=True):
            measured = one["speedup"]
            left.errorbar(
                ratio,
                measured["mean"],
                yerr=[[measured["mean"] - measured["low"]], [measured["high"] - measured["mean"]]],
                marker="o",
                capsize=3,
                color=_OURS if one["shown"] else _FAILED,
            )
        left.plot(ratios, [one["predicted"] for one in verdicts], "_", ms=18, color=_CLAIM, label="claimed")
        left.plot(ratios, [one["needed"] for one in verdicts], "x", color=_CLAIM, label="least accepted")
        left.plot([], [], "o-", color=_OURS, label="over HTTP, with its 95 % interval")
        left.axhline(1.0, color=_CLAIM, linewidth=0.8, linestyle="--")
        left.set_xlim(0, max(ratios) + 0.1)
        left.set_ylim(bottom=min(0.9, *(one["speedup"]["low"] for one in verdicts)))
        left.set_xlabel("reduction ratio")
        left.set_ylabel("images/s over ratio 0")
        left.legend(frameon=False, loc="upper left")
        for one in [dense, *(verdict["speedup"] for verdict in verdicts)]:
            rounds = range(1, len(one["images_per_s"]) + 1)
            right.plot(rounds, one["images_per_s"], "o-", ms=3, label=f"ratio {one['ratio']}")
        right.set_xlabel("round")
        right.set_xticks(list(rounds))
        right.set_ylabel("images/s")
        right.set_ylim(bottom=0)
        right.legend(frameon=False, loc="lower right", ncols=len(verdicts) + 1)
        where = report["environment"]
        figure.suptitle(
            f"{report['model']}, {report['dtype']}, {report['users']} clients, "
            f"{where['device']}, {where['cores']} cores",
            fontsize=9,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
