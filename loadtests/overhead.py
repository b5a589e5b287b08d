"""The overhead of the service: images/s over HTTP against the bare model, and the use of the cores.

In turns, round after round: the bare model in a process of its own, on all cores, while the server is stopped with
all its processes; then the server, saturated over HTTP. Ends with 1 if less than nine tenths of the bare model's
throughput arrives, if a request fails, or if the parts do not add up to the cores' time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
import uvloop
from bare import Bare, Done, Turn, bare
from closed_loop import Target, saturate
from cpu_use import OTHERS, read, spent
from overhead_report import LEAST, Overhead, Phase, as_json, latency, overhead, tables
from pictures import photos
from random_model import compile_model, model_folder
from report import save
from servers import Server, serving

from prunepool.lab.environment import environment

#: Clients in the rounds.
CLIENTS = 16
#: Settings for offline throughput: no latency target.
_FLAGS = ("--target-latency-ms", "inf", "--default-reduction-ratio", "0")


@dataclass
class Rounds:
    """The measurements at one ratio.

    Attributes:
        batch: images in a run of the bare model: the fastest.
        bare: its turns.
        http: phases by server and number of clients.
    """

    batch: int
    bare: list[Done] = field(default_factory=list)
    http: dict[tuple[str, int], list[Phase]] = field(default_factory=dict)


class Run:
    """A run.

    Args:
        wanted: what was asked for.
        model: the bare one.
        servers: stopped, by their flags.
        images: encoded photos.
    """

    def __init__(
        self, wanted: argparse.Namespace, model: Bare, servers: dict[str, Server], images: Sequence[bytes]
    ) -> None:
        self._wanted = wanted
        self._model = model
        self._servers = servers
        self._images = images
        self._cores = len(os.sched_getaffinity(0))
        self.found: dict[str, Rounds] = {}

    def choose(self) -> None:
        """Find the bare model's fastest batch size at each ratio."""
        seconds = self._wanted.seconds / 4
        for ratio in self._wanted.ratios:
            rates: dict[int, list[float]] = {batch: [] for batch in self._wanted.batches}
            for _ in range(3):
                for batch, those in rates.items():
                    those.append(self._model.run(Turn(float(ratio), batch, seconds)).images_per_s)
            best = max(rates, key=lambda batch: statistics.median(rates[batch]))
            self.found[ratio] = Rounds(best)
            said = ", ".join(f"{batch}: {statistics.median(those):.1f}/s" for batch, those in rates.items())
            print(f"bare at {ratio}, by batch: {said}", file=sys.stderr, flush=True)

    def rounds(self) -> None:
        """Measure bare model and servers alternately, in both orders."""
        turns = [(ratio, name) for ratio in self._wanted.ratios for name in (None, *self._servers)]
        for number in range(self._wanted.rounds):
            for ratio, name in turns if number % 2 == 0 else turns[::-1]:
                found = self.found[ratio]
                if name is None:
                    found.bare.append(self._model.run(Turn(float(ratio), found.batch, self._wanted.seconds)))
                    rate = f"bare {found.bare[-1].images_per_s:.1f}/s"
                else:
                    rate = self._phase(name, ratio, CLIENTS)
                print(f"round {number + 1}: ratio {ratio}: {rate}", file=sys.stderr, flush=True)

    def crowds(self) -> None:
        """Measure once with other numbers of clients too."""
        for clients in self._wanted.clients:
            for ratio in self._wanted.ratios:
                for name in self._servers:
                    if clients != CLIENTS:
                        said = self._phase(name, ratio, clients)
                        print(f"{clients} clients: ratio {ratio}: {said}", file=sys.stderr, flush=True)

    def overheads(self) -> list[Overhead]:
        """Summarise the rounds."""
        return [
            overhead(
                name,
                ratio,
                found.batch,
                [one.images_per_s for one in found.bare],
                [one.stack_ms for one in found.bare],
                found.http[name, CLIENTS],
            )
            for name in self._servers
            for ratio, found in self.found.items()
        ]

    def latencies(self) -> list[dict[str, Any]]:
        """Summarise the clients' measurements."""
        return [
            latency(name, ratio, clients, phases)
            for ratio, found in self.found.items()
            for (name, clients), phases in sorted(found.http.items())
        ]

    def _phase(self, name: str, ratio: str, clients: int) -> str:
        """Saturate a server, record the result, and return it as text."""
        server = self._servers[name]
        server.go_on()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                phase = runner.run(self._saturated(server, ratio, clients))
        finally:
            server.pause()
        self.found[ratio].http.setdefault((name, clients), []).append(phase)
        others = phase.spent.share(OTHERS)
        return f"HTTP {name} {phase.images_per_s:.1f}/s, others {others:.1%} of the cores".replace("  ", " ")

    async def _saturated(self, server: Server, ratio: str, clients: int) -> Phase:
        host, port = server.address
        target = Target(host, port, f"/classify?top_k=5&reduction_ratio={ratio}")
        seconds, settle = self._wanted.seconds, self._wanted.settle

        async def cores() -> Any:
            await asyncio.sleep(settle)
            before = read(server.process.pid)
            await asyncio.sleep(seconds)
            return spent(before, read(server.process.pid), self._cores)

        asking = saturate(target, self._images, clients=clients, seconds=seconds, settle_s=settle)
        seen, used = await asyncio.gather(asking, cores())
        return Phase(seen.images_per_s, seen.latencies, seen.errors, used)


def numbers(text: str) -> list[int]:
    """Parse comma-separated numbers."""
    return [int(part) for part in text.split(",")]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--architecture", default="deit_small_patch16_224", help="timm architecture with random weights"
    )
    parser.add_argument("--model", type=Path, help="folder of a model to use instead")
    parser.add_argument("--dtype", default="float32", help="of the bare model and of the servers")
    parser.add_argument("--pytorch", action="store_true", help="PyTorch runs both, instead of OpenVINO")
    parser.add_argument("--images", type=Path, help="folder of JPEGs to send; without it, generated ones")
    parser.add_argument("--ratios", type=lambda text: text.split(","), default=["0", "0.755"])
    parser.add_argument(
        "--batches", type=numbers, default=[8, 16, 32], help="batch sizes to try with the bare model"
    )
    parser.add_argument(
        "--clients", type=numbers, default=[1, 4, 16, 64], help="numbers of clients in the table of latencies"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured seconds per phase")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds of each phase before those")
    parser.add_argument(
        "--server-flags",
        action="append",
        metavar="FLAGS",
        help="flags of a further server, after any NAME=VALUE for its environment; repeatable",
    )
    parser.add_argument("--json", type=Path, default=Path("out/overhead.json"))
    return parser.parse_args(arguments)


def main() -> int:
    """Run, report, and compare with the limit."""
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    with ExitStack() as stack:
        folder = stack.enter_context(model_folder(wanted.model, wanted.architecture))
        flags = ["--model", str(folder), "--dtype", wanted.dtype, *_FLAGS]
        if wanted.pytorch:
            flags += ["--cpu-openvino", "false"]
        elif wanted.model is None:
            compile_model(folder)
        model = stack.enter_context(bare(folder, wanted.images, wanted.dtype, openvino=not wanted.pytorch))
        servers = {}
        for more in wanted.server_flags or [""]:
            words = shlex.split(more)
            variables = list(takewhile(lambda word: not word.startswith("-"), words))
            server = serving(
                more or "as it is",
                [*flags, *words[len(variables) :]],
                environment=dict(word.split("=", 1) for word in variables),
            )
            servers[more] = stack.enter_context(server)
            servers[more].pause()
        run = Run(wanted, model, servers, photos(wanted.images))
        run.choose()
        run.rounds()
        run.crowds()
    found, latencies = run.overheads(), run.latencies()
    report = {
        "architecture": wanted.architecture if wanted.model is None else wanted.model.name,
        "dtype": wanted.dtype,
        "runtime": "PyTorch" if wanted.pytorch else "OpenVINO",
        "photos": "of a folder" if wanted.images else "generated, 500×375",
        "clients": CLIENTS,
        "seconds": wanted.seconds,
        "least": LEAST,
        "environment": environment(torch.device("cpu")),
        "overheads": [as_json(one) for one in found],
        "latencies": latencies,
    }
    save(report, wanted.json)
    print(tables(found, latencies))
    for one in found:
        if not one.shown:
            print(f"\nNOT THERE: {one.flags or 'as it is'}, ratio {one.ratio}: {one.kept:.2f} of {LEAST}")
    failed = any(one["errors"] for one in latencies)
    return 0 if all(one.shown for one in found) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
