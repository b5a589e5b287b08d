"""The resources of a server (descriptors, threads, memory, shared memory) and its metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from servers import Server

#: Routes that the observation itself requests.
_NOT_COUNTED = {"/metrics", "/healthz", "/readyz"}
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Held:
    """The resources of all processes of a server.

    Attributes:
        processes: how many there are.
        descriptors: open files and sockets.
        threads: how many run, by name.
        resident_mb: memory.
        shared: names in shared memory that are the product's.
    """

    processes: int
    descriptors: int
    threads: Counter[str]
    resident_mb: float
    shared: frozenset[str]

    def leaks(self, before: Held, *, slack_mb: float) -> list[str]:
        """Return the resources held now that were not held before.

        Args:
            before: an earlier look at the same server.
            slack_mb: what an allocator may keep.
        """
        found = [
            f"{name}: {was} before, {now} after"
            for name, was, now in (
                ("processes", before.processes, self.processes),
                ("descriptors", before.descriptors, self.descriptors),
            )
            if now > was
        ]
        if self.threads.total() > before.threads.total():
            found.append(f"threads: new ones named {dict(self.threads - before.threads)}")
        if self.resident_mb > before.resident_mb + slack_mb:
            found.append(f"memory: {before.resident_mb:.0f} MB before, {self.resident_mb:.0f} MB after")
        if left := self.shared - before.shared:
            found.append(f"shared memory: {', '.join(sorted(left))}")
        return found


def held(server: Server) -> Held:
    """Read the resources of a running server."""
    first = psutil.Process(server.process.pid)
    family = [first, *first.children(recursive=True)]
    return Held(
        processes=len(family),
        descriptors=sum(one.num_fds() for one in family),
        threads=Counter(name for one in family for name in _thread_names(one.pid)),
        resident_mb=sum(one.memory_info().rss for one in family) / 1e6,
        shared=frozenset(one.name for one in _SHARED_MEMORY.glob("prunepool*")),
    )


def _thread_names(pid: int) -> Iterator[str]:
    for one in Path(f"/proc/{pid}/task").glob("*/comm"):
        with suppress(OSError):  # it has ended
            yield one.read_text().strip()


async def leaks(server: Server, before: Held, *, slack_mb: float, within_s: float = 10.0) -> list[str]:
    """Return what a server holds that it did not hold before; sockets may close a little later."""
    over = time.monotonic() + within_s
    found = held(server).leaks(before, slack_mb=slack_mb)
    while found and time.monotonic() < over:
        await asyncio.sleep(0.3)
        found = held(server).leaks(before, slack_mb=slack_mb)
    return found


class Scrape:
    """The server's metrics at one time."""

    def __init__(self, server: Server) -> None:
        self._text = httpx.get(f"{server.url}/metrics", timeout=30).text

    def total(self, name: str) -> float:
        """Return the sum of a series over all labels."""
        return sum(value for _, value in self.samples(name))

    def outcomes(self) -> Counter[str]:
        """Return the requests by outcome: `ok`, the code of an error, or `cancelled` if the client disconnected."""
        counted: Counter[str] = Counter()
        for labels, value in self.samples("prunepool_http_requests_total"):
            if labels["route"] not in _NOT_COUNTED:
                counted["cancelled" if labels["status"] == "499" else labels["code"]] += round(value)
        return counted

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yield labels and value of each sample of a series."""
        for family in text_string_to_metric_families(self._text):
            for sample in family.samples:
                if sample.name == name:
                    yield sample.labels, sample.value


async def at_rest(server: Server, within_s: float = 20.0) -> Scrape:
    """Wait until no request is in flight and no counter changes.

    Raises:
        TimeoutError: that did not come to be in time.
    """
    over = time.monotonic() + within_s
    before: Counter[str] | None = None
    while time.monotonic() < over:
        scrape = await asyncio.to_thread(Scrape, server)
        counted = scrape.outcomes()
        busy = scrape.total("prunepool_queue_requests") + scrape.total("prunepool_queue_drain_seconds")
        if not busy and counted == before:
            return scrape
        before = counted
        await asyncio.sleep(0.3)
    raise TimeoutError(f"{server.name} was still busy after {within_s:g} s")
