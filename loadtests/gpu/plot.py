"""The GPU check's picture: images/s of every candidate at each batch size, and of the service by clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw it as a PNG.

    Args:
        report: of `check.py`, with the part `speed` in it.
        path: of the picture.
    """
    speed = report["speed"]["report"]
    batches = sorted({row["batch"] for row in speed["rows"]})
    served = [
        server
        for server in report.get("service", {}).get("report", {}).get("servers", ())
        if server.get("closed")
    ]
    panels = len(batches) + bool(served)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.4 * panels, 4.2), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for axis, batch in zip(axes, batches, strict=False):
            # The last measurement of a candidate is the one beside the strongest rival.
            rows = {row["candidate"]: row for row in speed["rows"] if row["batch"] == batch}
            names = list(reversed(rows))
            colours = ["#c2255c" if name.startswith("timm") else "#0b7285" for name in names]
            axis.barh(names, [rows[name]["images_per_s"] for name in names], color=colours)
            axis.set_title(f"batch {batch}")
            axis.set_xlabel("images/s")
        if served:
            _service(axes[-1], served)
        environment = speed["environment"]
        figure.suptitle(
            f"{speed['architecture']}, {speed['dtype']}, {environment['device']}, torch {environment['torch']}, "
            f"{report['date']}"
        )
        figure.savefig(path, dpi=130)


def _service(axis: Any, servers: list[Mapping[str, Any]]) -> None:
    for number, server in enumerate(servers):
        for ratio in dict.fromkeys(row["ratio"] for row in server["closed"]):
            rows = sorted(
                (row for row in server["closed"] if row["ratio"] == ratio), key=lambda row: row["clients"]
            )
            label = f"server {number + 1}, ratio {ratio}"
            clients = [row["clients"] for row in rows]
            axis.plot(clients, [row["images_per_s"] for row in rows], marker="o", label=label)
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_title("over HTTP")
    axis.set_xlabel("clients")
    axis.set_ylabel("images/s")
    axis.legend(frameon=False, fontsize=7)
