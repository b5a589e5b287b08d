"""Whether latency stayed as it was, from the p99 of many short windows of one run.

A window's p99 rests on its few slowest answers, so that on a quiet machine it scatters by about a fifth from
one window to the next; the worst of many says little. What a server that degrades does is another thing: its
later windows are worse than its first (a leak, a queue that never empties), or bad ones come again and again.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

#: Fewer windows than this show nothing.
LEAST_WINDOWS = 15
#: The median p99 of the last third of the windows may be so many times that of the first third.
MOST_GROWTH = 1.3
#: A window is bad whose p99 is so many times the median; this share of the windows may be.
BAD, MOST_BAD = 2.0, 0.1


def unstable(p99: Sequence[float]) -> list[str]:
    """How latency did not stay as it was; nothing where there is no sign of that, or too little to tell.

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
