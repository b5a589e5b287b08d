"""Figures of each phase of an elastic run, and its plot over time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from open_loop import Seen

COLOURS = {"dense": "#c2255c", "fixed": "#e8890c", "auto": "#0b7285", "mixed": "#5f3dc4"}
#: Accuracy figures that a profile may have, in order of preference.
_ACCURACY = ("top1", "agreement")


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return a quantile of values."""
    return sorted(values)[round(share * (len(values) - 1))] if values else None


def summary(seen: Sequence[Seen], seconds: float, target_s: float) -> dict[str, Any]:
    """Compute the figures of a phase.

    Args:
        seen: every request that was due in it.
        seconds: how long requests came.
        target_s: within which an answer counts.
    """
    answered = [one for one in seen if one.status == 200]
    good = [one for one in answered if one.seconds <= target_s]
    ratios = [one.ratio for one in answered if one.ratio is not None]
    latencies = [one.seconds for one in answered]
    p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
    return {
        "offered": len(seen),
        "offered_per_s": len(seen) / seconds,
        "answered": len(answered),
        "within_target": len(good),
        "goodput_per_s": len(good) / seconds,
        "attainment": len(good) / len(seen) if seen else math.nan,
        "refused": dict(Counter(one.code for one in seen if one.status != 200)),
        "mean_ratio": sum(ratios) / len(ratios) if ratios else None,
        "dense_share": sum(ratio == 0 for ratio in ratios) / len(ratios) if ratios else None,
        "p50_ms": None if p50 is None else p50 * 1000,
        "p99_ms": None if p99 is None else p99 * 1000,
    }


def effective_accuracy(
    seen: Sequence[Seen], profile: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any] | None:
    """Return the mean of a profile's figure at the applied ratios; None if it was not measured."""
    for figure in _ACCURACY:
        points = [(p["ratio"], p[figure]) for p in profile or () if p.get(figure) is not None]
        ratios = [one.ratio for one in seen if one.ratio is not None]
        if len(points) > 1 and ratios:
            return {"figure": figure, "mean": sum(_between(points, ratio) for ratio in ratios) / len(ratios)}
    return None


def _between(points: Sequence[tuple[float, float]], ratio: float) -> float:
    """Interpolate a figure linearly between measured ratios."""
    for (low, before), (high, after) in pairwise(points):
        if ratio <= high:
            return before + (after - before) * max(0.0, ratio - low) / (high - low)
    return points[-1][1]


def share_below(before: Mapping[float, float], after: Mapping[float, float], limit: float) -> float | None:
    """Return the share of a histogram's new observations up to one of its bounds."""
    counted = after[math.inf] - before.get(math.inf, 0.0)
    return (after[limit] - before.get(limit, 0.0)) / counted if counted else None


def quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float | None:
    """Return a quantile of a histogram's new observations, interpolated within its bucket."""
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    if not counts or not counts[-1]:
        return None
    wanted, low, low_count = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - low_count) / max(count - low_count, 1e-9)
        low, low_count = bound, count
    return None


def draw(report: Mapping[str, Any], traces: Mapping[str, Mapping[str, Sequence[Seen]]], path: Path) -> None:
    """Draw latency and applied ratio over time, one column a trace.

    Args:
        report: of the run.
        traces: by trace and variant, what was seen in the first round.
        path: of the PNG.
    """
    target_ms = report["target_ms"]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.0 * len(traces), 6.4), layout="constrained")
        axes = figure.subplots(3, len(traces), squeeze=False, sharex="col")
        for column, (name, variants) in enumerate(traces.items()):
            for variant, seen in variants.items():
                _columns([row[column] for row in axes], variant, seen, target_ms)
            axes[0][column].set_title(name)
            axes[0][column].axhline(target_ms, color="0.5", linewidth=0.8, linestyle="--")
            axes[0][column].set_yscale("log")
            axes[2][column].set_xlabel("seconds")
        axes[0][0].set_ylabel("latency, ms")
        axes[1][0].set_ylabel("within target, of all, each second")
        axes[2][0].set_ylabel("mean applied ratio")
        axes[0][-1].legend(frameon=False, loc="lower right", markerscale=4)
        where = report["environment"]
        figure.suptitle(
            f"{report['model']} on {where['device']}, {where['cores']} cores; "
            f"dashed: the target, {target_ms:g} ms",
            fontsize=9,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)


def _columns(axes: Sequence[Any], variant: str, seen: Sequence[Seen], target_ms: float) -> None:
    colour = COLOURS[variant]
    answered = [one for one in seen if one.status == 200]
    axes[0].plot(
        [one.at for one in answered],
        [one.seconds * 1000 for one in answered],
        ".",
        markersize=2,
        color=colour,
        label=variant,
    )
    seconds: dict[int, list[Seen]] = {}
    for one in seen:
        seconds.setdefault(int(one.at), []).append(one)
    good = [
        sum(one.status == 200 and one.seconds * 1000 <= target_ms for one in those) / len(those)
        for those in seconds.values()
    ]
    axes[1].plot([at + 0.5 for at in seconds], good, color=colour)
    axes[1].set_ylim(-0.03, 1.03)
    ratios = {at: [one.ratio for one in those if one.ratio is not None] for at, those in seconds.items()}
    known = {at: sum(those) / len(those) for at, those in ratios.items() if those}
    axes[2].plot([at + 0.5 for at in known], list(known.values()), color=colour)
    axes[2].set_ylim(-0.03, 0.95)
