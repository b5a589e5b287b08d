"""The service on a GPU, end to end: JPEGs over HTTP, closed loop at several concurrencies, then half load."""

from __future__ import annotations

import asyncio
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from closed_loop import Phase, Target, saturate
from open_loop import Seen, Sender
from part import Part, attempt, typical
from pictures import photos, pictures
from servers import Server, serving

RATIOS = ("0.755", "0")


def closed(host: str, port: int, path: str, images: list[bytes], clients: int, seconds: float) -> Phase:
    """One process' share of the clients."""
    target = Target(host, port, path)
    return asyncio.run(saturate(target, images, clients=clients, seconds=seconds, settle_s=seconds / 3))


def opened(host: str, port: int, query: str, images: list[bytes], rate: float, seconds: float) -> list[Seen]:
    """One process' share of the requests, at random times."""

    async def follow() -> list[Seen]:
        sender = Sender(host, port, images, query)
        gaps = np.random.default_rng(os.getpid()).exponential(1 / rate, round(rate * seconds))
        try:
            return await sender.follow(np.cumsum(gaps).tolist(), 20.0)
        finally:
            sender.close()

    return asyncio.run(follow())


class Load:
    """Clients in several processes, so that they are not the limit.

    Args:
        server: that is asked.
        images: encoded.
        processes: of clients.
        seconds: of each phase.
    """

    def __init__(self, server: Server, images: list[bytes], processes: int, seconds: float) -> None:
        self._address = server.address
        self._images = images
        self._processes = processes
        self._seconds = seconds

    def closed(self, ratio: str, clients: int) -> dict[str, Any]:
        """Every client asks again when it is answered."""
        count = min(self._processes, clients)
        path = f"/classify?top_k=5&reduction_ratio={ratio}"
        with ProcessPoolExecutor(count) as pool:
            waiting = [
                pool.submit(closed, *self._address, path, self._images, clients // count, self._seconds)
                for _ in range(count)
            ]
            phases = [one.result() for one in waiting]
        latencies = [1000 * one for phase in phases for one in phase.latencies]
        errors = [error for phase in phases for error in phase.errors]
        return {
            "ratio": ratio,
            "clients": clients,
            "images_per_s": sum(phase.images_per_s for phase in phases),
            **_percentiles(latencies),
            "errors": len(errors),
            "first_error": errors[0] if errors else None,
        }

    def opened(self, ratio: str, rate: float) -> dict[str, Any]:
        """So many images/s at random times, whatever became of those before."""
        query = f"reduction_ratio={ratio}"
        with ProcessPoolExecutor(self._processes) as pool:
            waiting = [
                pool.submit(
                    opened, *self._address, query, self._images, rate / self._processes, self._seconds
                )
                for _ in range(self._processes)
            ]
            seen = [one for share in waiting for one in share.result()]
        good = [one.seconds * 1000 for one in seen if one.status == 200]
        return {
            "ratio": ratio,
            "asked_per_s": rate,
            "answered": len(good),
            "asked": len(seen),
            **_percentiles(good),
        }


def _percentiles(milliseconds: list[float]) -> dict[str, float | None]:
    if not milliseconds:
        return {"p50_ms": None, "p99_ms": None}
    return {name: float(np.percentile(milliseconds, q)) for name, q in (("p50_ms", 50), ("p99_ms", 99))}


def main() -> None:
    """Serve and ask: CUDA graphs behind several front ends, then eagerly in one process."""
    part = Part.called()
    images = typical(photos(part.photos)) if part.photos else pictures(4 if part.quick else 64, 900, 675)
    cores = len(os.sched_getaffinity(0))
    report: dict[str, Any] = {
        "mean_bytes": sum(map(len, images)) / len(images),
        "cores": cores,
        "servers": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        common = ["--max-queue-requests", "4096", "--max-connections", "4096", "--target-latency-ms", "inf"]
        if part.quick:
            flags = [["--device", "cpu", "--dtype", "float32", "--max-batch-size", "2"]]
        else:
            from random_model import random_model  # it imports torch, which takes seconds

            name = random_model("deit_small_patch16_224", Path(folder))
            model = ["--model-store", folder, "--model", name, "--dtype", "bfloat16"]
            graphs = ["--max-batch-size", "256", "--cuda-graphs"]
            apart = ["--frontends", str(max(1, cores - 4)), "--decode-threads", "1"]
            # Recorded first; kernel by kernel shows whether the server items at all should recording fail.
            flags = [
                [*model, *graphs, "512", "--devices", part.device, *apart],
                [*model, *graphs, "0", "--device", part.device],
            ]
        for number, own in enumerate(flags):
            shown = [flag.replace(folder, "…") for flag in own]
            if part.left < 25 and not part.quick:
                report["servers"].append({"flags": shown, "not_measured": "no time"})
                continue
            log = Path(folder) / f"{number}.log"
            found: dict[str, Any] = {"flags": shown, "closed": [], "half_load": []}
            report["servers"].append(found)
            problem = attempt(
                lambda own=own, log=log, found=found: ask(part, [*own, *common], log, images, found)
            )
            found.update(problem or {})
            if "not_measured" in found and log.exists():
                found["log"] = log.read_text()[-2000:]
            part.save(report)


def ask(part: Part, flags: list[str], log: Path, images: list[bytes], found: dict[str, Any]) -> None:
    """Put one server to the test."""
    with serving("prunepool", flags, log=log) as server:
        load = Load(server, images, 1 if part.quick else 4, 0.5 if part.quick else 3.0)
        for ratio in RATIOS[:1] if part.quick else RATIOS:
            for clients in (2,) if part.quick else (1024, 256, 64, 16, 1):
                if part.left < 8 and not part.quick:
                    return
                found["closed"].append(load.closed(ratio, clients))
            best = max(row["images_per_s"] for row in found["closed"] if row["ratio"] == ratio)
            found["half_load"].append(load.opened(ratio, max(1.0, best / 2)))


if __name__ == "__main__":
    main()
