"""Makes the tables of docs/scaling.md from the results of capacity.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ROUTINGS = {"random": "random", "two": "better of two", "least": "least requests"}


def check_rows(checked: Sequence[dict[str, Any]]) -> list[str]:
    """Return measured and simulated figures, one row for each phase."""
    rows, before = [], None
    for one in checked:
        cells = ["" if one["trace"] == before else one["trace"], one["variant"]]
        for name, form in (("attainment", _percent), ("p50_ms", _whole), ("p99_ms", _whole)):
            cells += [form(one["measured"][name]), form(one["simulated"][name])]
        rows.append(_row(cells))
        before = one["trace"]
    return rows


def cost_rows(cost: Sequence[dict[str, Any]]) -> list[str]:
    """Return the largest load and the replicas for it, dense and with `auto`, one row for each balancer."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in sorted(cost, key=lambda one: (one["replicas"], one["dies_every_s"] or 0)):
        dies, best = one["dies_every_s"], one["largest_load"]
        number = f"{one['replicas']}" + (f", each dies every {dies / 60:g} minutes" if dies else "")
        routing = ROUTINGS[one["routing"]] if one["replicas"] > 1 else ""
        row = found.setdefault((number, routing), [number, routing])
        row += ["–", "–"] if best is None else [f"{best:g}", f"{one['replicas_per_1000_a_second']:.0f}"]
    return [_row(cells) for cells in found.values()]


def _row(cells: Sequence[str]) -> str:
    return "".join(f"| {cell} " for cell in cells) + "|"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %".replace(".0 %", " %")


def _whole(value: float) -> str:
    return f"{value:,.0f}"
