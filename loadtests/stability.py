"""Checks that latency stays constant, by the p99 of many short windows of a run.

A window's p99 rests on its few slowest answers, so that on a quiet machine it scatters by about a fifth from
one window to the next; the worst of many says little. What a server that degrades does is another thing: its
later windows are worse than its first (a leak, a queue that never empties), or bad ones come again and again.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

#: Fewer windows are not enough for a verdict.
LEAST_WINDOWS = 15
#: Largest ratio of the median p99 in the last third of the windows to that in the first third.
MOST_GROWTH = 1.3
#: A window is bad if its p99 exceeds this multiple of the median; this share of them may be bad.
BAD, MOST_BAD = 2.0, 0.1


def unstable(p99: Sequence[float]) -> list[str]:
    """Return how latency changed; nothing if it did not, or if there are too few windows.

    Args:
        p99: of each window, in the order of time; any unit.
    """
    if len(p99) < LEAST_WINDOWS:
        return []
    third = len(p99) // 3
    first, last, median = (statistics.median(part) for part in (p99[:third], p99[-third:], p99))
    bad = sum(value > BAD * median for value in p99)
    found = []
    if last > MOST_GROWTH * first:
        found.append(
            f"p99 grew from {first:.0f} ms in the first third to {last:.0f} ms in the last (medians)"
        )
    if bad > MOST_BAD * len(p99):
        found.append(
            f"p99 was more than {BAD:g} times its median of {median:.0f} ms in {bad} of {len(p99)} windows"
        )
    return found
