"""Which number format a model computes in, if the setting is `auto`: the fastest that answers as float32 does.

Speed is measured and not looked up: some processors emulate a format an order of magnitude slower than float32, and
with narrow formats the reduction of tokens may take longer than it saves. It needs no torch.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunepool.backends.fidelity import Reference, compare
from prunepool.core.formats import MOST_KL, MOST_KL_REDUCED, Fidelity, FormatTrial

#: Weights in int8, all else in bfloat16; in `int8` alone, all else is in float32.
MIXED = "int8+bfloat16"

#: From the widest to the narrowest.
FORMATS = ("float32", "bfloat16", "float16", "int8", MIXED)

#: A narrower format is taken only if it is faster by this factor: rounding costs accuracy.
_WORTH_IT = 1.1

log = logging.getLogger(__name__)

#: Logits of normalised photos, float32 [B, 3, H, W], at a ratio.
Run = Callable[[NDArray[np.float32], float], NDArray[np.float32]]


def try_formats(
    runs: Mapping[str, Run],
    reference: Reference,
    photos: NDArray[np.float32],
    *,
    rounds: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> list[FormatTrial]:
    """Run the sample photos in several formats, taking turns, and choose one.

    Args:
        runs: what computes in each format.
        reference: answers in float32.
        photos: normalised, float32 [B, 3, H, W].
        rounds: timed runs of each format at each ratio, after one that is not.
        clock: seconds.

    Returns:
        One trial for each format; at most one is chosen, none if no format agrees with float32.
    """
    seconds: dict[str, list[float]] = {dtype: [] for dtype in runs}
    fidelity: dict[str, list[Fidelity]] = {dtype: [] for dtype in runs}
    for ratio, expected in zip(reference.ratios, reference.logits, strict=True):
        for dtype, run in runs.items():
            fidelity[dtype].append(compare(run(photos, ratio), expected))
        taken: dict[str, list[float]] = {dtype: [] for dtype in runs}
        for _ in range(rounds):
            for dtype, run in runs.items():
                start = clock()
                run(photos, ratio)
                taken[dtype].append(clock() - start)
        for dtype, own in taken.items():
            seconds[dtype].append(statistics.median(own))
    trials = [
        FormatTrial(
            dtype,
            reference.ratios,
            tuple(len(photos) / one if one > 0 else math.inf for one in seconds[dtype]),
            tuple(fidelity[dtype]),
        )
        for dtype in runs
    ]
    return _with_choice(trials)


def _with_choice(trials: Sequence[FormatTrial]) -> list[FormatTrial]:
    """The same trials, with the fastest faithful format chosen; a narrower one has to be clearly faster."""
    chosen: FormatTrial | None = None
    for trial in sorted(trials, key=lambda one: FORMATS.index(one.dtype)):
        if trial.faithful and (chosen is None or trial.speed > _WORTH_IT * chosen.speed):
            chosen = trial
    marked = [replace(one, chosen=one is chosen) for one in trials]
    for one in marked:
        log.info("%s: %s", one.dtype, described(one))
    return marked


def described(trial: FormatTrial) -> str:
    """A trial in words, for a line of the log."""
    parts = [
        f"{speed:.1f} images/s at ratio {ratio:g} "
        f"(same top-1 on {own.agreement:.0%} of the photos, KL {own.kl:.2g})"
        for ratio, speed, own in zip(trial.ratios, trial.images_per_s, trial.fidelity, strict=True)
    ]
    far = (
        f"its probabilities are too far from float32's: KL may be {MOST_KL:g} nats at ratio 0, "
        f"and {MOST_KL_REDUCED:g} with tokens removed"
    )
    if trial.dtype != MIXED:  # which `auto` alone takes
        far += f"; the setting dtype={trial.dtype} takes it anyway"
    verdict = "chosen" if trial.chosen else "not chosen" if trial.faithful else far
    return f"{', '.join(parts)}: {verdict}"
