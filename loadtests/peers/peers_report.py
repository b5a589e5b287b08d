"""Figures, table and picture of a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from contenders import OURS
from matplotlib.figure import Figure

from prunepool.lab.environment import in_words

_BLUE, _GREY = "#0b7285", "0.6"
#: What tells the settings of a server apart.
_KEY = ("name", "runtime", "dtype", "setting")


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the journal says.

    Args:
        rows: of the journal.

    Returns:
        `tried`: each setting of each server. `groups`: for each dtype those of its rounds, the fastest first; ours
        are compared round by round with the best peer of the group.
    """
    tried: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    measured: dict[str, dict[tuple[str, ...], list[Mapping[str, Any]]]] = {}
    for row in rows:
        key = tuple(row[name] for name in _KEY)
        if row["stage"] == "choose":
            tried.setdefault(key, []).append(row)
        else:
            measured.setdefault(row["group"], {}).setdefault((*key, row["ratio"]), []).append(row)
    return {
        "tried": [_tried(dict(zip(_KEY, key, strict=True)), those) for key, those in tried.items()],
        "groups": {dtype: _group(found) for dtype, found in measured.items()},
    }


def _group(measured: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The contenders of one dtype, and ours in the dtype that it chose, the fastest first."""
    keys = (*_KEY, "ratio")
    contenders = [_contender(dict(zip(keys, key, strict=True)), those) for key, those in measured.items()]
    contenders.sort(key=lambda one: -one["images_per_s"])
    best = next((one for one in contenders if not _ours(one)), None)
    for one in contenders:
        if best is not None and _ours(one):
            pairs = zip(one["rounds"], best["rounds"], strict=True)
            one["best_peer"] = label(best)
            one["over_best_peer"] = statistics.median(own / other for own, other in pairs)
            one["p99_of_best_peer_ms"] = best["p99_ms"]
    return contenders


def _ours(one: Mapping[str, Any]) -> bool:
    return bool(one["name"] == OURS)


def _tried(names: dict[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    failures = [row["failure"] for row in rows if "failure" in row]
    if failures:
        return {**names, "failure": failures[0]}
    errors = sorted({error for row in rows for error in row["errors"]})
    rate = max(row["images_per_s"] for row in rows)
    return {**names, "ran": rows[-1]["ran"], "images_per_s": rate, "errors": errors}


def _contender(names: dict[str, str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [row["images_per_s"] for row in sorted(rows, key=lambda row: int(row["round"]))]
    waits = sorted(wait for row in rows for wait in row["latencies_ms"]) or [float("nan")]
    last = len(waits) - 1
    return {
        **names,
        "ran": rows[-1]["ran"],
        "images_per_s": statistics.median(rates),
        "rounds": rates,
        "p50_ms": waits[round(0.5 * last)],
        "p99_ms": waits[round(0.99 * last)],
        "errors": sorted({error for row in rows for error in row["errors"]}),
        "others": max(row["others"] for row in rows),
    }


def label(one: Mapping[str, Any]) -> str:
    """What a contender is called."""
    if _ours(one):
        return f"{one['name']}, ratio {one['ratio']}" + (", dtype auto" if one["dtype"] == "auto" else "")
    return f"{one['name']}, {one['runtime']}"


def show(report: Mapping[str, Any]) -> None:
    """Print a table for each dtype, in Markdown, and all that was tried."""
    print(in_words(report["environment"]))
    for dtype, contenders in report["groups"].items():
        print(f"\n{dtype}:\n")
        print("| server | computes in | images/s | lowest–highest | over the best peer | p50 ms | p99 ms |")
        print("|---|---|---|---|---|---|---|")
        for one in contenders:
            over = f"×{one['over_best_peer']:.2f} {one['best_peer']}" if "best_peer" in one else ""
            low, high = min(one["rounds"]), max(one["rounds"])
            print(
                f"| {label(one)} | {one['ran']} | {one['images_per_s']:.1f} | {low:.1f}–{high:.1f} | {over} "
                f"| {one['p50_ms']:.0f} | {one['p99_ms']:.0f} |"
            )
            for error in one["errors"]:
                print(f"  errors: {error}")
    print("\ntried:")
    for one in report["tried"]:
        found = one.get("failure") or (
            f"computes in {one['ran']}, {one['images_per_s']:.1f} images/s {' '.join(one['errors'])}"
        )
        print(f"- {one['name']}, {one['runtime']}, {one['dtype']}, {one['setting']}: {found}")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw throughput and latency of each dtype as a PNG."""
    groups = report["groups"]
    most = sum(len(contenders) for contenders in groups.values())
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9.0, 0.42 * most + 1.2 * len(groups)), layout="constrained")
        axes = figure.subplots(
            len(groups), 2, squeeze=False, height_ratios=[len(one) for one in groups.values()]
        )
        for (left, right), (dtype, contenders) in zip(axes, groups.items(), strict=True):
            _panels(left, right, contenders[::-1])
            left.set_title(dtype, loc="left")
        axes[-1][0].set_xlabel("images/s: median, lowest and highest round")
        axes[-1][1].set_xlabel("latency, ms: p50 (dark) and p99 (light)")
        where = f"{report['architecture']}, {report['clients']} clients, {in_words(report['environment'])}"
        figure.suptitle(where, fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def _panels(left: Any, right: Any, contenders: Sequence[Mapping[str, Any]]) -> None:
    names = [label(one) for one in contenders]
    colours = [_BLUE if _ours(one) else _GREY for one in contenders]
    rates = [one["images_per_s"] for one in contenders]
    spread = [
        [rate - min(one["rounds"]) for rate, one in zip(rates, contenders, strict=True)],
        [max(one["rounds"]) - rate for rate, one in zip(rates, contenders, strict=True)],
    ]
    left.barh(names, rates, xerr=spread, color=colours, error_kw={"lw": 1, "capsize": 2})
    right.barh(names, [one["p99_ms"] for one in contenders], color=colours, alpha=0.45, label="p99")
    right.barh(names, [one["p50_ms"] for one in contenders], color=colours, height=0.4, label="p50")
    right.set_yticks([])
