"""Soak test: two models, every kind of request, with bursts; does anything grow or get lost?

Each window, of half a minute, has its own figures. Memory at the end is held against memory once all was warm,
the later windows' p99 against the first (stability.py), and what the clients got against what the server counted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hostile
import matplotlib as mpl
import orjson
import torch
import uvloop
from arrivals import arrivals
from elastic_report import percentile, quantile
from ledger import Ledger
from matplotlib.figure import Figure
from observed import Held, Scrape, at_rest, held
from open_loop import Seen, Sender
from pictures import pictures
from random_model import random_model
from report import save, without
from servers import Server, serving
from stability import LEAST_WINDOWS, unstable

from prunepool.lab.environment import environment

WINDOW_S = 30.0
#: A server returns the memory of a burst within a minute; earlier samples depend on the moment.
IDLE_S = 65.0
#: Until the memory of one-time allocations is there.
WARM_WINDOWS = 4
MOST_GROWTH = 0.05
#: Load as shares of the dense capacity: most of the time, and for a third of each window.
CALM, BURST = 0.5, 1.2
TIMEOUT_S = 20.0
QUERIES = (
    "",
    "reduction_ratio=auto",
    "reduction_ratio=0",
    "reduction_ratio=0.5",
    "reduction_ratio=0.755&explain=true",
    "reduction_ratio=auto&max_reduction_ratio=0.4",
    "reduction_ratio=auto&deadline_ms=2000",
)


@dataclass
class Window:
    """The measurements of a window.

    Attributes:
        at: seconds since the beginning, at its end.
        asked: requests whose clients waited.
        outcomes: what became of them, and of those who left.
        p50_ms: median latency of the answered.
        p99_ms: and nearly the worst.
        resident_mb: memory of the server afterwards.
        descriptors: open files and sockets.
        threads: running threads.
    """

    at: float
    asked: int
    outcomes: dict[str, int]
    p50_ms: float
    p99_ms: float
    resident_mb: float
    descriptors: int
    threads: int


class Soak:
    """A run.

    Args:
        server: with all models loaded.
        models: their names.
        capacity: images a second that it can do without reduction, the models in turn.
        window_s: length of a window.
    """

    def __init__(self, server: Server, models: Sequence[str], capacity: float, window_s: float) -> None:
        self._server = server
        self._window_s = window_s
        self._images = [*pictures(), *pictures(count=4, size=900)]
        self._senders = [
            Sender(*server.address, self._images[i::2], f"model={model}&{query}")
            for i, (model, query) in enumerate((m, q) for m in models for q in QUERIES)
        ]
        self._capacity = capacity
        self._source = random.Random(0)
        self._rubbish = hostile.rubbish(server, self._images[0], self._source)
        self.ledger = Ledger()
        self.wrong: list[str] = []

    async def window(self, begin: float) -> Window:
        """Run a window with every kind of load."""
        ledger = Ledger()
        seen, _ = await asyncio.gather(self._good(), self._hostilities(ledger))
        ledger.add(seen)
        self.ledger.outcomes.update(ledger.outcomes)
        latencies = [one.seconds * 1000 for one in seen if one.status == 200]
        now = held(self._server)
        return Window(
            time.monotonic() - begin,
            len(seen),
            dict(ledger.outcomes),
            percentile(latencies, 0.5) or 0.0,
            percentile(latencies, 0.99) or 0.0,
            now.resident_mb,
            now.descriptors,
            now.threads.total(),
        )

    async def rest(self) -> Held:
        """Read the idle server's resources, after closing our connections."""
        for sender in self._senders:
            sender.close()
        await at_rest(self._server)
        await asyncio.sleep(IDLE_S)
        return held(self._server)

    async def _good(self) -> list[Seen]:
        """Send valid requests of every kind at random times: light load, a burst, light load."""

        def rate(now: float) -> float:
            share = BURST if self._window_s / 3 < now < self._window_s * 2 / 3 else CALM
            return share * self._capacity / len(self._senders)

        most = BURST * self._capacity / len(self._senders)
        found = await asyncio.gather(
            *(
                sender.follow(arrivals(rate, most, self._window_s, self._source), TIMEOUT_S)
                for sender in self._senders
            )
        )
        return [one for seen in found for one in seen]

    async def _hostilities(self, ledger: Ledger) -> None:
        """Now and then disconnect, or send an invalid request."""
        over = time.monotonic() + self._window_s
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < over:
                await asyncio.sleep(self._source.expovariate(1.0))
                group.create_task(self._leave(ledger, self._source.choice(self._images)))
                group.create_task(self._send_rubbish(ledger))

    async def _leave(self, ledger: Ledger, image: bytes) -> None:
        ledger.outcomes[await hostile.vanish(self._server, image, self._source)] += 1

    async def _send_rubbish(self, ledger: Ledger) -> None:
        status, code = await hostile.refused(self._server, next(self._rubbish))
        ledger.outcomes[code] += 1
        if not (400 <= status < 500 or code == "overloaded"):
            self.wrong.append(f"rubbish was answered with {status} {code}")


def faults(windows: Sequence[Window], before: Held, after: Held) -> list[str]:
    """Return the faults."""
    warm = windows[WARM_WINDOWS:]
    if len(warm) < 2:
        return [f"{len(windows)} windows are too few to compare"]
    early, late = (
        statistics.median(w.resident_mb for w in part) for part in (warm[: len(warm) // 4 + 1], warm[-3:])
    )
    found = []
    if late > early * (1 + MOST_GROWTH):
        found.append(f"memory grew from {early:.0f} MB to {late:.0f} MB")
    found += unstable([w.p99_ms for w in warm])
    found += after.leaks(before, slack_mb=MOST_GROWTH * before.resident_mb)
    return found


async def run(server: Server, models: Sequence[str], minutes: float, window_s: float) -> dict[str, Any]:
    """Run all windows, and summarise them."""
    capacities = []
    for model in models:
        sender = Sender(*server.address, pictures(), f"model={model}&reduction_ratio=0")
        capacities.append(await sender.saturate(16, 5.0))
        sender.close()
    capacity = statistics.harmonic_mean(capacities)
    soak = Soak(server, models, capacity, window_s)
    first = await at_rest(server)
    windows: list[Window] = []
    warm: Held | None = None
    begin = time.monotonic()
    while time.monotonic() - begin < minutes * 60:
        windows.append(await soak.window(begin))
        print(orjson.dumps(asdict(windows[-1])).decode(), file=sys.stderr, flush=True)
        if len(windows) == WARM_WINDOWS:
            warm = await soak.rest()
    end = await soak.rest()
    last = Scrape(server)
    served = last.outcomes()
    served.subtract(first.outcomes())
    return {
        "models": list(models),
        "minutes": minutes,
        "window_s": window_s,
        "p99_judged": len(windows) - WARM_WINDOWS >= LEAST_WINDOWS,
        "dense_capacity_per_s": capacity,
        "environment": environment(torch.device("cpu")),
        "outcomes": dict(soak.ledger.outcomes),
        "prediction_error_p90": {
            model: quantile(_errors(first, model), _errors(last, model), 0.9) for model in models
        },
        "resident_mb_at_rest": [one.resident_mb for one in (warm or end, end)],
        "windows": [asdict(window) for window in windows],
        "faults": soak.ledger.faults(served) + soak.wrong + faults(windows, warm or end, end),
    }


def _errors(scrape: Scrape, model: str) -> dict[float, float]:
    """Return the buckets of the histogram of a model's prediction errors."""
    samples = scrape.samples("prunepool_prediction_error_ratio_bucket")
    return {float(labels["le"]): value for labels, value in samples if labels["model"] == model}


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw memory and latency over the windows."""
    windows = report["windows"]
    minutes = [w["at"] / 60 for w in windows]
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "soak"}):
        figure = Figure(figsize=(9, 5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(minutes, [w["p99_ms"] for w in windows], label="p99", color="#c2255c")
        above.plot(minutes, [w["p50_ms"] for w in windows], label="p50", color="#0b7285")
        above.set(ylabel="latency, ms", ylim=(0, None))
        above.legend(frameon=False)
        below.plot(minutes, [w["resident_mb"] for w in windows], color="#5f3dc4")
        below.set(ylabel="memory, MB", xlabel="minutes", ylim=(0, None))
        figure.savefig(path, dpi=130)


def main() -> None:
    """Run, report, draw; exit 1 if anything grew or was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--window-s", type=float, default=WINDOW_S)
    parser.add_argument("--model", default="deit_tiny_imagenette")
    parser.add_argument("--model-store", default="model_store")
    parser.add_argument(
        "--second",
        default="deit_tiny_patch16_224",
        help="timm's architecture of a second model, random weights",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    wanted = parser.parse_args()
    flags = ["--model", wanted.model, "--model-store", wanted.model_store, "--dtype", "float32"]
    with tempfile.TemporaryDirectory() as folder:
        second = random_model(wanted.second, Path(folder))
        flags += ["--models", f"{folder}/{second}", "--request-timeout-s", "5"]
        with serving("soak", flags) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(run(server, [wanted.model, second], wanted.minutes, wanted.window_s))
            report["flags"] = without(folder, server.flags)
    if wanted.json:
        save(report, wanted.json)
    if wanted.plot:
        draw(report, wanted.plot)
    if not report["p99_judged"]:
        print(f"too few windows to judge p99 by: {LEAST_WINDOWS} after the first {WARM_WINDOWS} are needed")
    print("\n".join(report["faults"]) or "nothing lost, nothing grown")
    if report["faults"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
