"""The memory of a server: with many clients in bfloat16, and over thousands of requests in float32.

Ends with 1 if memory grew by more than a twentieth from the warm server to the last request, or a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import statistics
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import uvloop
from closed_loop import Phase, Target, saturate
from observed import held
from pictures import photos
from random_model import model_folder
from report import save
from servers import Server, serving

from prunepool.lab.environment import environment

#: Allowed growth of memory after the warm-up.
MOST_GROWTH = 0.05
#: Seconds between two samples.
_EVERY_S = 0.25


class Watch:
    """Samples a server's memory in a thread while the context is open.

    Args:
        server: whose; all its processes count.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
        self.resident_mb: list[float] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.resident_mb.append(held(self._server).resident_mb)
            self._over.wait(_EVERY_S)


def crowd(
    server: Server, images: Sequence[bytes], *, ratio: str, clients: int, seconds: float
) -> dict[str, Any]:
    """Measure memory with many clients: idle before, at the peak, and in the last third."""
    rest = held(server).resident_mb
    with Watch(server) as watch:
        phase = _ask(server, images, ratio=ratio, clients=clients, seconds=seconds)
    late = watch.resident_mb[-(len(watch.resident_mb) // 3 or 1) :]
    return {
        "clients": clients,
        "seconds": seconds,
        "ratio": ratio,
        "images_per_s": phase.images_per_s,
        "before_mb": rest,
        "peak_mb": max(watch.resident_mb),
        "steady_mb": statistics.median(late),
        "errors": sorted(set(phase.errors)),
    }


def many(
    server: Server, images: Sequence[bytes], *, ratio: str, clients: int, requests: int, every: int
) -> dict[str, Any]:
    """Measure memory after every so many requests; the first ones warm the server up."""
    points: list[tuple[int, float]] = []
    errors: set[str] = set()
    rate = _ask(server, images, ratio=ratio, clients=clients, seconds=5.0).images_per_s
    answered = 0
    while answered < requests + every:
        phase = _ask(server, images, ratio=ratio, clients=clients, seconds=every / rate)
        if not phase.latencies:
            raise RuntimeError(f"{server.name} answers no more: {sorted(set(phase.errors))[:3]}")
        errors.update(phase.errors)
        answered += len(phase.latencies)
        points.append((answered, held(server).resident_mb))
        print(f"{answered} requests: {points[-1][1]:.0f} MB", file=sys.stderr, flush=True)
    return {"clients": clients, "ratio": ratio, "points": points, "errors": sorted(errors)}


def growth(points: Sequence[tuple[int, float]]) -> float:
    """Return the growth from the first sample, when warm, to the median of the last three."""
    return statistics.median(mb for _, mb in points[-3:]) / points[0][1] - 1


def tables(crowded: dict[str, Any], over: dict[str, Any]) -> str:
    """Return both tables, in Markdown."""
    figures = (crowded["before_mb"], crowded["peak_mb"], crowded["steady_mb"])
    first = [f"bfloat16, {crowded['clients']} clients", f"{crowded['images_per_s']:.1f}", *_mb(figures)]
    lines = [
        ["", "images/s", "before, MB", "peak, MB", "steady, MB"],
        ["---"] * len(first),
        first,
        [],
        ["float32: requests answered", *(f"{count:,}" for count, _ in over["points"])],
        ["---"] * (1 + len(over["points"])),
        ["MB", *_mb(mb for _, mb in over["points"])],
    ]
    return "\n".join(f"| {' | '.join(line)} |" if line else "" for line in lines)


def _mb(figures: Iterable[float]) -> list[str]:
    return [f"{figure:,.0f}" for figure in figures]


def _ask(server: Server, images: Sequence[bytes], *, ratio: str, clients: int, seconds: float) -> Phase:
    target = Target(*server.address, f"/classify?top_k=5&reduction_ratio={ratio}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(saturate(target, images, clients=clients, seconds=seconds, settle_s=0.0))


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--architecture", default="deit_small_patch16_224", help="timm architecture with random weights"
    )
    parser.add_argument("--model", type=Path, help="folder of a model to use instead")
    parser.add_argument("--images", type=Path, help="folder of JPEGs to send; without it, generated ones")
    parser.add_argument("--ratio", default="0.755")
    parser.add_argument("--crowd", type=int, default=64, help="clients of the server in bfloat16")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of load in bfloat16")
    parser.add_argument("--requests", type=int, default=10_000, help="requests to the warm server in float32")
    parser.add_argument("--every", type=int, default=1_000, help="requests between two samples")
    parser.add_argument("--server-flags", default="", metavar="FLAGS", help="further flags of both servers")
    parser.add_argument("--json", type=Path, default=Path("out/memory.json"))
    return parser.parse_args(arguments)


def main() -> int:
    """Run, report, and compare with the limit."""
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    images = photos(wanted.images)
    with model_folder(wanted.model, wanted.architecture) as folder:
        # If bfloat16 is slow, this many clients wait longer than the default limits allow.
        limits = ["--target-latency-ms", "inf", "--max-queue-ms", "600000"]
        flags = ["--model", str(folder), *limits, *shlex.split(wanted.server_flags), "--dtype"]
        with serving("bfloat16", [*flags, "bfloat16"]) as server:
            crowded = crowd(server, images, ratio=wanted.ratio, clients=wanted.crowd, seconds=wanted.seconds)
        with serving("float32", [*flags, "float32"]) as server:
            over = many(
                server,
                images,
                ratio=wanted.ratio,
                clients=16,
                requests=wanted.requests,
                every=wanted.every,
            )
    grown = growth(over["points"])
    report = {
        "architecture": wanted.architecture if wanted.model is None else wanted.model.name,
        "environment": environment(torch.device("cpu")),
        "server_flags": wanted.server_flags,
        "bfloat16": crowded,
        "float32": {**over, "growth": grown},
    }
    save(report, wanted.json)
    print(tables(crowded, over))
    print(f"\nmemory grew by {grown:.1%}; at most {MOST_GROWTH:.0%} is allowed")
    return 0 if grown <= MOST_GROWTH and not crowded["errors"] and not over["errors"] else 1


if __name__ == "__main__":
    sys.exit(main())
