"""Fault injection: does the server lose requests, leak descriptors or leak memory?

Each scene runs against a real server. After each, what the clients got is held against what the server counted,
and what the server holds against what it held before.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import scenes
import torch
import uvloop
from ledger import Ledger
from observed import at_rest, held, leaks
from pictures import pictures
from report import save
from scenes import Stage
from servers import Server, serving

from prunepool.lab.environment import environment

Scene = Callable[[Stage], Awaitable[Ledger]]
#: Freed memory that the allocator may keep.
SLACK_MB = 60.0
FLAGS = (
    # By PyTorch from start to end: a change to OpenVINO in the middle of a scene has other threads and memory.
    *("--dtype", "float32", "--cpu-openvino", "false", "--target-latency-ms", "500"),
    *("--request-timeout-s", f"{scenes.REQUEST_TIMEOUT_S:g}"),
)

#: A server whose engine runs in a process of its own, and logs its pid.
APART = ("--engine", "process", "--log-level", "info", "--log-format", "json")
KILLS_S = 60.0

#: Scenes that run on one server; after each, the server must hold what it held before.
SURVIVED: tuple[Scene, ...] = (
    scenes.vanishing_clients,
    scenes.slow_senders,
    scenes.flood,
    scenes.rubbish_among_good_ones,
    scenes.stopped_and_continued,
)


@dataclass
class Verdict:
    """The result of a scene.

    Attributes:
        scene: its name.
        outcomes: of its requests.
        faults: what was wrong; empty if nothing was.
        notes: figures worth keeping.
    """

    scene: str
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: dict[str, float | str] = field(default_factory=dict)


async def play(scene: Scene, stage: Stage) -> Verdict:
    """Run a scene, and compare counters and resources before and after it."""
    verdict = Verdict(scene.__name__.replace("_", " "))
    before = await at_rest(stage.server)
    was = held(stage.server)
    ledger = await scene(stage)
    try:
        after = await at_rest(stage.server)
    except TimeoutError as error:
        verdict.faults.append(str(error))
        return verdict
    verdict.outcomes = dict(ledger.outcomes)
    if not ledger.outcomes["ok"]:
        verdict.faults.append("no request was answered: the scene shows nothing")
    served = after.outcomes()
    served.subtract(before.outcomes())
    verdict.faults += ledger.faults(served) + stage.faults
    verdict.faults += await leaks(stage.server, was, slack_mb=SLACK_MB)
    now = held(stage.server)
    verdict.notes = {**stage.notes, "memory_mb_before": was.resident_mb, "memory_mb_after": now.resident_mb}
    return verdict


async def warm(server: Server, seconds: float) -> Stage:
    """Start a server and warm it up with a flood, so that its resources no longer grow."""
    images = pictures()
    stage = Stage(server, images, seconds, await scenes.dense_capacity(server, images))
    await scenes.flood(stage)
    return stage


async def survived(server: Server, played: Sequence[Scene], seconds: float) -> list[Verdict]:
    """Run scenes on one server, one after the other."""
    stage = await warm(server, min(seconds, 4.0))
    return [await play(scene, Stage(server, stage.images, seconds, stage.capacity)) for scene in played]


@contextmanager
def stages(log: Path | None, extra: Sequence[str], **variables: str) -> Iterator[Server]:
    """Start a server for a scene that needs its own."""
    with serving("chaos", [*FLAGS, *extra], environment=variables, log=log) as server:
        yield server


def run(seconds: float) -> list[Verdict]:
    """All scenes."""
    verdicts: list[Verdict] = []

    def add(made: list[Verdict]) -> None:
        for verdict in made:
            show(verdict)
        verdicts.extend(made)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        with stages(None, ()) as server:
            add(runner.run(survived(server, SURVIVED, seconds)))
        with stages(Path("/dev/full"), ("--log-level", "debug")) as server:
            add(runner.run(survived(server, (scenes.full_disk,), seconds)))
        with tempfile.NamedTemporaryFile() as log, stages(Path(log.name), APART) as server:
            add(runner.run(survived(server, (scenes.killed_engines,), max(seconds, KILLS_S))))
        with scenes.other_clock() as clock, stages(None, (), **clock.variables) as server:
            add(runner.run(survived(server, (clock.jumps,), seconds)))
        with stages(None, ()) as server:
            add([runner.run(scenes_end(server, seconds))])
    return verdicts


async def scenes_end(server: Server, seconds: float) -> Verdict:
    """Send SIGTERM under load, and check the exit."""
    images = pictures()
    stage = Stage(server, images, seconds, await scenes.dense_capacity(server, images))
    ledger = await scenes.told_to_end(stage)
    return Verdict("told to end", dict(ledger.outcomes), stage.faults, dict(stage.notes))


def show(verdict: Verdict) -> None:
    """Print a line for the scene, and one for each fault."""
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(verdict.outcomes.items()))
    print(f"{'FAULT' if verdict.faults else 'ok':>5}  {verdict.scene}: {outcomes}", flush=True)
    for fault in verdict.faults:
        print(f"       {fault}", flush=True)


def main() -> None:
    """Run, report; exit 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a scene")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    verdicts = run(wanted.seconds)
    if wanted.json:
        report = {
            "environment": environment(torch.device("cpu")),
            "seconds": wanted.seconds,
            "scenes": [asdict(verdict) for verdict in verdicts],
        }
        save(report, wanted.json)
    if any(verdict.faults for verdict in verdicts):
        sys.exit(1)


if __name__ == "__main__":
    main()
