"""The picture of capacity.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = {"random": "#c2255c", "two": "#e8890c", "least": "#0b7285"}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw attainment and auto's ratio against load; a column for each number of replicas, one with failures."""
    numbers = sorted({row["replicas"] for row in rows})
    columns: list[tuple[int, bool]] = [(number, False) for number in numbers]
    columns += sorted({(row["replicas"], True) for row in rows if row["dies_every_s"]})
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.2 * len(columns), 5.2), layout="constrained")
        axes = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
        for column, (number, dying) in enumerate(columns):
            here = [r for r in rows if r["replicas"] == number and bool(r["dies_every_s"]) == dying]
            for routing in COLOURS:
                for variant, style in (("auto", "-"), ("dense", "--")):
                    points = [r for r in here if (r["routing"], r["variant"]) == (routing, variant)]
                    if not points:
                        continue
                    x = [point["load"] for point in points]
                    look = {"color": COLOURS[routing], "linestyle": style, "marker": ".", "markersize": 4}
                    axes[0][column].plot(
                        x, [p["attainment"] for p in points], label=f"{variant}, {routing}", **look
                    )
                    if variant == "auto":
                        axes[1][column].plot(x, [p["mean_ratio"] for p in points], **look)
            replicas = "1 replica" if number == 1 else f"{number} replicas"
            axes[0][column].set_title(f"{replicas}, each dies every 2 min" if dying else replicas)
            axes[1][column].set_xlabel("mean load, share of the dense capacity")
        axes[0][0].set_ylabel("answered within the target")
        axes[1][0].set_ylabel("mean applied ratio of auto")
        axes[0][1 if len(columns) > 1 else 0].legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=130)
