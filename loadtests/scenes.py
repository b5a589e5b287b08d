"""Fault scenes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import hostile
import httpx
import orjson
from arrivals import poisson
from ledger import Ledger
from open_loop import NO_ANSWER, Seen, Sender
from servers import Server

#: How long the last requests of a scene may take.
TIMEOUT_S = 20.0
#: `request_timeout_s` of the servers in these scenes.
REQUEST_TIMEOUT_S = 3.0
#: Longer than the restart of an engine on two cores.
KILL_EVERY_S = 5.0
#: Largest latency of a valid request while other clients misbehave.
SOON_S = 2.0


async def dense_capacity(server: Server, images: Sequence[bytes], seconds: float = 2.0) -> float:
    """Measure the dense capacity in images per second."""
    sender = Sender(*server.address, images, "reduction_ratio=0")
    try:
        return await sender.saturate(16, seconds)
    finally:
        sender.close()


@dataclass
class Stage:
    """The environment of a scene.

    Attributes:
        server: the server.
        images: encoded JPEGs.
        seconds: how long.
        capacity: images a second that it can answer without reduction.
        faults: what was seen to be wrong.
        notes: figures worth keeping.
    """

    server: Server
    images: Sequence[bytes]
    seconds: float
    capacity: float
    faults: list[str] = field(default_factory=list)
    notes: dict[str, float | str] = field(default_factory=dict)

    @property
    def easy(self) -> float:
        """A rate that is a light load, even beside other clients."""
        return 0.2 * self.capacity

    async def follow(self, rate: float, seed: int = 0) -> list[Seen]:
        """Send valid requests in an open loop, at random times."""
        sender = Sender(*self.server.address, self.images)
        try:
            times = poisson("", rate, self.seconds, random.Random(seed)).times
            return await sender.follow(times, TIMEOUT_S)
        finally:
            sender.close()

    def check(self, right: bool, otherwise: str) -> None:
        """Record a fault unless a condition holds."""
        if not right:
            self.faults.append(otherwise)

    def check_all_good(self, seen: Sequence[Seen], within_s: float = SOON_S) -> None:
        """Check that all requests were answered in time."""
        bad = [one for one in seen if one.status != 200]
        self.check(not bad, f"{len(bad)} of {len(seen)} good requests failed: {bad[:3]}")
        slowest = max((one.seconds for one in seen), default=0.0)
        self.notes["slowest_good_s"] = slowest
        self.check(slowest <= within_s, f"a good request took {slowest:.1f} s")


async def vanishing_clients(stage: Stage) -> Ledger:
    """Half of the clients disconnect at random times; the others must not notice."""
    ledger, source = Ledger(), random.Random(0)

    async def leave(image: bytes) -> None:
        ledger.outcomes[await hostile.vanish(stage.server, image, source)] += 1

    good = asyncio.create_task(stage.follow(stage.easy))
    leaving: list[asyncio.Task[None]] = []
    while not good.done():
        leaving.append(asyncio.create_task(leave(source.choice(stage.images))))
        await asyncio.sleep(source.expovariate(stage.easy))
    await asyncio.gather(*leaving)
    seen = await good
    ledger.add(seen)
    stage.check_all_good(seen)
    return ledger


async def slow_senders(stage: Stage) -> Ledger:
    """A hundred slow clients; the server must close their connections and serve the others."""
    slow = [
        asyncio.create_task(hostile.dawdle(stage.server, stage.images[0], stage.seconds + TIMEOUT_S))
        for _ in range(100)
    ]
    seen = await stage.follow(stage.easy)
    ledger = Ledger()
    ledger.add(seen)
    lasted = 0.0
    for borne, code in await asyncio.gather(*slow):
        lasted = max(lasted, borne)
        ledger.outcomes[code] += 1
    stage.notes["longest_slow_sender_s"] = lasted
    stage.check(lasted < REQUEST_TIMEOUT_S + 2, f"a slow sender was borne for {lasted:.1f} s")
    stage.check_all_good(seen)
    return ledger


async def flood(stage: Stage) -> Ledger:
    """Five times the dense capacity; each request must be answered, or refused at once with Retry-After."""
    seen = await stage.follow(5 * stage.capacity)
    ledger = Ledger()
    ledger.add(seen)
    others = {one.code for one in seen if one.status not in (200, 503)}
    stage.check(not others, f"neither answered nor refused with Retry-After: {others}")
    stage.notes["dense_capacity_per_s"] = stage.capacity
    return ledger


async def rubbish_among_good_ones(stage: Stage) -> Ledger:
    """Half of the requests are invalid; they must be refused with their codes, and the others answered."""
    source = random.Random(0)
    wrong = hostile.rubbish(stage.server, stage.images[0], source)
    good = asyncio.create_task(stage.follow(stage.easy))
    ledger = Ledger()
    while not good.done():
        for asked in [hostile.refused(stage.server, raw) for raw in islice(wrong, 4)]:
            status, code = await asked
            ledger.outcomes[code] += 1
            stage.check(
                400 <= status < 500 or code == "overloaded", f"rubbish was answered with {status} {code}"
            )
        await asyncio.sleep(0.05)
    seen = await good
    stage.check_all_good(seen)
    ledger.add(seen)
    return ledger


async def stopped_and_continued(stage: Stage) -> Ledger:
    """All processes of the server are paused for a second, repeatedly; no request may be lost."""
    following = asyncio.create_task(stage.follow(stage.easy))
    while not following.done():
        await asyncio.sleep(1.0)
        os.kill(stage.server.process.pid, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        os.kill(stage.server.process.pid, signal.SIGCONT)
    seen = await following
    ledger = Ledger()
    ledger.add(seen)
    stage.check_all_good(seen, within_s=1.0 + 2 * SOON_S)
    return ledger


async def killed_engines(stage: Stage) -> Ledger:
    """The engine's process is killed every five seconds; it must restart each time."""
    following = asyncio.create_task(stage.follow(stage.easy))
    slowest, kills = 0.0, 0
    while not following.done():
        await asyncio.sleep(KILL_EVERY_S)
        os.kill(_latest(stage.server, "process started", "engine-0"), signal.SIGKILL)
        kills += 1
        begin = time.perf_counter()
        await _ready(stage.server)
        slowest = max(slowest, time.perf_counter() - begin)
    seen = await following
    ledger = Ledger()
    ledger.add(seen)
    stage.notes |= {"kills": kills, "slowest_recovery_s": slowest}
    stage.check(slowest < 10, f"an engine was back after {slowest:.1f} s only")
    codes = {one.code for one in seen if one.status != 200}
    stage.check(codes <= {"engine_unavailable"}, f"refused with {codes}")
    waits = [one.seconds for one in seen if one.status != 200]
    stage.check(max(waits, default=0.0) < SOON_S, f"a refusal took {max(waits, default=0.0):.1f} s")
    return ledger


def _latest(server: Server, event: str, name: str) -> int:
    """Return the pid in the last such line of the server's log."""
    assert server.log is not None, "its log is needed, as JSON in a file"
    lines = [orjson.loads(line) for line in server.log.read_bytes().splitlines() if line.startswith(b"{")]
    return int([one["pid"] for one in lines if one["event"] == event and one["name"] == name][-1])


async def _ready(server: Server) -> None:
    """Wait until the server is not ready, and then until it is."""
    async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_S) as client:
        for wanted in (503, 200):
            async with asyncio.timeout(TIMEOUT_S):
                while (await client.get("/readyz")).status_code != wanted:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)


async def full_disk(stage: Stage) -> Ledger:
    """The log cannot be written."""
    seen = await stage.follow(stage.easy)
    stage.check_all_good(seen)
    ledger = Ledger()
    ledger.add(seen)
    return ledger


@dataclass(frozen=True)
class OtherClock:
    """A settable wall clock for one process; its monotonic clock is not affected.

    Attributes:
        variables: that process's environment.
        setting: a file with what the clock is ahead.
    """

    variables: Mapping[str, str]
    setting: Path

    async def jumps(self, stage: Stage) -> Ledger:
        """The wall clock jumps a day forwards and back, every second."""
        following = asyncio.create_task(stage.follow(stage.easy))
        ahead = False
        while not following.done():
            await asyncio.sleep(1.0)
            ahead = not ahead
            self.setting.write_text("+1d" if ahead else "-1d")
        seen = await following
        stage.check_all_good(seen)
        ledger = Ledger()
        ledger.add(seen)
        return ledger


@contextmanager
def other_clock() -> Iterator[OtherClock]:
    """Make a clock for a server, by libfaketime.

    Raises:
        FileNotFoundError: libfaketime is not installed.
    """
    found = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if found is None:
        raise FileNotFoundError("libfaketime is not installed (Debian: apt install libfaketime)")
    with tempfile.TemporaryDirectory() as folder:
        setting = Path(folder) / "clock"
        setting.write_text("+0")
        variables = {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(setting),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        yield OtherClock(variables, setting)


async def told_to_end(stage: Stage) -> Ledger:
    """SIGTERM at full load: accepted requests must be answered, later ones refused, and the exit status be 0."""
    following = asyncio.create_task(stage.follow(1.3 * stage.capacity))
    await asyncio.sleep(stage.seconds / 2)
    begin = time.perf_counter()
    stage.server.process.send_signal(signal.SIGTERM)
    try:
        code = await asyncio.to_thread(stage.server.process.wait, 40)
    except subprocess.TimeoutExpired:
        code = -1
    ended = time.perf_counter() - begin
    stage.notes["drained_s"] = ended
    stage.check(code == 0, f"the server ended with {code}")
    seen = await following
    ledger = Ledger()
    ledger.add(seen)
    # A refused connection was never accepted; every accepted request gets a response.
    lost = [
        one for one in seen if one.code == NO_ANSWER and one.at < stage.seconds / 2 - 0.05 and one.seconds > 0
    ]
    stage.check(not lost, f"{len(lost)} requests that were sent before the signal got no answer")
    codes = {one.code for one in seen if one.status not in (0, 200)}
    stage.check(codes <= {"draining", "overloaded"}, f"refused with {codes}")
    return ledger
