"""Figures, table and picture of a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from contenders import BY_OPENVINO, OURS
from matplotlib.figure import Figure

_BLUE, _GREY = "#0b7285", "0.6"


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the journal says.

    Args:
        rows: of the journal.

    Returns:
        `tried`: each setting of each server; `contenders`: those of the rounds, the fastest first. Ours
        name the best peer whose model is run by the same, PyTorch or OpenVINO.
    """
    tried: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["stage"] == "choose":
            tried.setdefault((row["name"], row["setting"]), []).append(row)
    measured: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["stage"] == "round":
            measured.setdefault((row["name"], row["setting"], row["ratio"]), []).append(row)
    contenders = [_contender(*key, those) for key, those in measured.items()]
    contenders.sort(key=lambda one: -one["images_per_s"])
    best: dict[str, Mapping[str, Any]] = {}
    for one in contenders:
        if not _ours(one):
            best.setdefault(_runs_model(one), one)
    for one in contenders:
        if _ours(one) and (peer := best.get(_runs_model(one))) is not None:
            pairs = zip(one["rounds"], peer["rounds"], strict=True)
            one["best_peer"] = peer["name"]
            one["over_best_peer"] = statistics.median(own / other for own, other in pairs)
    return {
        "tried": [_tried(name, setting, those) for (name, setting), those in tried.items()],
        "contenders": contenders,
    }


def _ours(one: Mapping[str, Any]) -> bool:
    return str(one["name"]).startswith(OURS)


def _runs_model(one: Mapping[str, Any]) -> str:
    return "OpenVINO" if str(one["name"]).endswith(BY_OPENVINO) else "PyTorch"


def _tried(name: str, setting: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failures = [row["failure"] for row in rows if "failure" in row]
    if failures:
        return {"name": name, "setting": setting, "failure": failures[0]}
    errors = sorted({error for row in rows for error in row["errors"]})
    rate = max(row["images_per_s"] for row in rows)
    return {"name": name, "setting": setting, "images_per_s": rate, "errors": errors}


def _contender(name: str, setting: str, ratio: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [row["images_per_s"] for row in sorted(rows, key=lambda row: int(row["round"]))]
    waits = sorted(wait for row in rows for wait in row["latencies_ms"]) or [float("nan")]
    last = len(waits) - 1
    return {
        "name": name,
        "setting": setting,
        "ratio": ratio,
        "images_per_s": statistics.median(rates),
        "rounds": rates,
        "p50_ms": waits[round(0.5 * last)],
        "p99_ms": waits[round(0.99 * last)],
        "errors": sorted({error for row in rows for error in row["errors"]}),
        "others": max(row["others"] for row in rows),
    }


def label(one: Mapping[str, Any]) -> str:
    """What a contender is called."""
    return f"{one['name']}, ratio {one['ratio']}" if _ours(one) else str(one["name"])


def show(report: Mapping[str, Any]) -> None:
    """Print the table, in Markdown."""
    print("| server | setting | images/s | lowest–highest | over the best peer | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    for one in report["contenders"]:
        over = f"×{one['over_best_peer']:.2f} {one['best_peer']}" if "best_peer" in one else ""
        low, high = min(one["rounds"]), max(one["rounds"])
        print(
            f"| {label(one)} | {one['setting']} | {one['images_per_s']:.1f} | {low:.1f}–{high:.1f} | {over} "
            f"| {one['p50_ms']:.0f} | {one['p99_ms']:.0f} |"
        )
        for error in one["errors"]:
            print(f"  errors: {error}")
    print("\ntried:")
    for one in report["tried"]:
        found = one.get("failure") or f"{one['images_per_s']:.1f} images/s {' '.join(one['errors'])}"
        print(f"- {one['name']}, {one['setting']}: {found}")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw throughput and latency as a PNG."""
    contenders = report["contenders"][::-1]
    names = [label(one) for one in contenders]
    colours = [_BLUE if _ours(one) else _GREY for one in contenders]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.0, 0.42 * len(names) + 1.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        rates = [one["images_per_s"] for one in contenders]
        spread = [
            [rate - min(one["rounds"]) for rate, one in zip(rates, contenders, strict=True)],
            [max(one["rounds"]) - rate for rate, one in zip(rates, contenders, strict=True)],
        ]
        left.barh(names, rates, xerr=spread, color=colours, error_kw={"lw": 1, "capsize": 2})
        left.set_xlabel("images/s: median, lowest and highest round")
        right.barh(names, [one["p99_ms"] for one in contenders], color=colours, alpha=0.45, label="p99")
        right.barh(names, [one["p50_ms"] for one in contenders], color=colours, height=0.4, label="p50")
        right.set_xlabel("latency, ms: p50 (dark) and p99 (light)")
        where = report["environment"]
        figure.suptitle(
            f"{report['architecture']}, float32, {report['clients']} clients, {where['device']}, "
            f"{where['cores']} cores, torch {where['torch']}",
            fontsize=9,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
