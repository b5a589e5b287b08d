"""CPU time by use: the parts of the service by thread, the load client, other processes, idle."""

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
#: Parts of the service, and other uses.
SERVICE = (MODEL, DECODING, LOOPS, REST)
PARTS = (*SERVICE, CLIENT, OTHERS, IDLE)

#: Thread names of the service.
_NAMED = {"model": MODEL, "decode": DECODING}


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU time since boot.

    Attributes:
        at: when it was read, in seconds of a monotonic clock.
        server: seconds by part of the service, and thread.
        client: seconds of this process, which asks.
        busy: seconds that all programs had, and what a hypervisor kept for itself.
        idle: idle seconds of all cores.
    """

    at: float
    server: Mapping[tuple[str, int], float]
    client: float
    busy: float
    idle: float


def part_of(name: str, *, main: bool) -> str:
    """Return the part of the service that a thread belongs to.

    Args:
        name: that the system has for it.
        main: whether it is the first of its process; HTTP and batching are there.
    """
    return LOOPS if main else _NAMED.get(name, REST)


def read(root: int) -> Reading:
    """Read the CPU time of a server, of this process and of the machine.

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
    # Linux includes the time of guests in user time.
    busy = sum(times) - times.guest - times.guest_nice - idle
    return Reading(time.perf_counter(), server, time.process_time(), busy, idle)


@dataclass(frozen=True, slots=True)
class Spent:
    """The use of the cores in an interval.

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
        """Sum of the shares of all parts: 1, up to the resolution of the kernel's ticks."""
        return sum(self.seconds.values()) / (self.cores * self.wall)

    def share(self, part: str) -> float:
        """Return a part's share of the cores' time."""
        return self.seconds[part] / (self.cores * self.wall)


def spent(before: Reading, after: Reading, cores: int) -> Spent:
    """Return the use of the cores between two readings.

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
