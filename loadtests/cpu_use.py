"""Who had the processor: each part of the service by its threads, the load client, everybody else, nobody."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import family

MODEL, DECODING, LOOPS, REST = "model", "decoding", "event loops", "other threads"
CLIENT, OTHERS, IDLE = "load client", "other programs", "idle"
#: What belongs to the service, and what does not.
SERVICE = (MODEL, DECODING, LOOPS, REST)
PARTS = (*SERVICE, CLIENT, OTHERS, IDLE)

#: What the service calls its threads.
_NAMED = {"model": MODEL, "decode": DECODING}


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor time so far.

    Attributes:
        at: when it was read, in seconds of a monotonic clock.
        server: seconds by part of the service, and thread.
        client: seconds of this process, which asks.
        busy: seconds that all programs had, and what a hypervisor kept for itself.
        idle: seconds that nobody had, over all cores.
    """

    at: float
    server: Mapping[tuple[str, int], float]
    client: float
    busy: float
    idle: float


def part_of(name: str, *, main: bool) -> str:
    """The part of the service that a thread belongs to.

    Args:
        name: that the system has for it.
        main: whether it is the first of its process; HTTP and batching are there.
    """
    return LOOPS if main else _NAMED.get(name, REST)


def read(root: int) -> Reading:
    """Look at a server, at this process and at the machine.

    Args:
        root: the server's first process.
    """
    server: dict[tuple[str, int], float] = {}
    for process in family(root):
        with suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with suppress(FileNotFoundError):  # it has just ended
                    name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text().strip()
                    part = part_of(name, main=thread.id == process.pid)
                    server[part, thread.id] = thread.user_time + thread.system_time
    times = psutil.cpu_times()
    idle = times.idle + times.iowait
    # Linux counts guests' time as the user's too.
    busy = sum(times) - times.guest - times.guest_nice - idle
    return Reading(time.perf_counter(), server, time.process_time(), busy, idle)


@dataclass(frozen=True, slots=True)
class Spent:
    """What became of the cores in a while.

    Attributes:
        seconds: by part, over all cores.
        wall: seconds by the clock on the wall.
        cores: that there were.
    """

    seconds: Mapping[str, float]
    wall: float
    cores: int

    @property
    def accounted(self) -> float:
        """The share of the cores' time that the parts add up to; 1, up to the ticks that times are counted in."""
        return sum(self.seconds.values()) / (self.cores * self.wall)

    def share(self, part: str) -> float:
        """Of the cores' time."""
        return self.seconds[part] / (self.cores * self.wall)


def spent(before: Reading, after: Reading, cores: int) -> Spent:
    """What became of the cores between two readings.

    What other programs had is what all had, less what the threads of the service and the client had; so a thread
    that was missed counts there. The machine's own count of idle time is independent of the wall's clock, against
    which the sum is held.
    """
    seconds = dict.fromkeys(PARTS, 0.0)
    for (part, thread), total in after.server.items():
        seconds[part] += total - before.server.get((part, thread), 0.0)
    seconds[CLIENT] = after.client - before.client
    ours = sum(seconds.values())
    seconds[OTHERS] = max(0.0, after.busy - before.busy - ours)
    seconds[IDLE] = after.idle - before.idle
    return Spent(seconds, after.at - before.at, cores)
