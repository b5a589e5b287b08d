"""Writes the dashboards that Grafana loads: `python dashboards/generate.py [FOLDER]`, or `make dashboards`."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dial import dial
from engine import engine
from overview import overview

DASHBOARDS = {"overview": overview, "dial": dial, "engine": engine}
FOLDER = Path(__file__).resolve().parent.parent / "docker" / "grafana" / "dashboards"


def generate(folder: Path) -> None:
    """Write one file for each dashboard, its panels numbered in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in DASHBOARDS.items():
        board = make().build()
        for number, panel in enumerate(board.panels or (), start=1):
            panel.id_val = number
        text = JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(board)
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
