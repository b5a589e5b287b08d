"""The scenes of the Ray test, and the outcomes of the requests in them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml
from arrivals import poisson
from elastic_report import summary
from open_loop import Seen, Sender
from pictures import photos
from ray_local import CONFIG, TIMEOUT_S, Cluster
from servers import Server

SAMPLES = Path(__file__).resolve().parent.parent / "service"
RATIOS = ("0", "0.5", "0.755")
#: Name of a copy of the model.
TWIN = "twin"


def parity(ours: str, plain: str, images: Sequence[bytes]) -> dict[str, Any]:
    """Classify the same photos at the same ratios with both; return how far the scores differ."""
    worst, labels, tokens = 0.0, 0, 0
    with httpx.Client(timeout=30, headers={"Content-Type": "image/jpeg"}) as client:
        for image in images:
            for ratio in RATIOS:
                query = {"reduction_ratio": ratio, "top_k": "10"}
                asked = [client.post(f"{url}/classify", params=query, content=image) for url in (ours, plain)]
                a, b = (answer.raise_for_status().json() for answer in asked)
                labels += a["predictions"][0]["label"] != b["predictions"][0]["label"]
                tokens += a["reduction"] != b["reduction"]
                scores = {p["label"]: p["score"] for p in b["predictions"]}
                worst = max(worst, *(abs(p["score"] - scores[p["label"]]) for p in a["predictions"]))
        shapes = [client.get(f"{url}/openapi.json").json()["paths"].keys() for url in (ours, plain)]
    return {
        "answers": len(images) * len(RATIOS),
        "other_best_label": labels,
        "other_reduction": tokens,
        "largest_difference_of_a_score": worst,
        "same_routes": shapes[0] == shapes[1],
    }


async def overhead(
    servers: dict[str, tuple[str, int]], images: Sequence[bytes], seconds: float
) -> dict[str, Any]:
    """Measure the latency of single requests to both, alternately."""
    found: dict[str, list[float]] = {name: [] for name in servers}
    senders = {name: Sender(*address, images, "reduction_ratio=0") for name, address in servers.items()}
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        for name, sender in senders.items():
            for one in await sender.follow([0.0], TIMEOUT_S):
                assert one.status == 200, one
                found[name].append(one.seconds * 1000)
    return {
        name: {"requests": len(ms), "p50_ms": statistics.median(ms), "p90_ms": sorted(ms)[int(0.9 * len(ms))]}
        for name, ms in found.items()
    }


async def throughput(
    address: tuple[str, int], images: Sequence[bytes], seconds: float, rounds: int
) -> list[float]:
    """Measure dense images/s with 16 clients, for each round."""
    sender = Sender(*address, images, "reduction_ratio=0")
    await sender.saturate(16, 2.0)
    return [await sender.saturate(16, seconds) for _ in range(rounds)]


async def meanwhile(
    address: tuple[str, int], images: Sequence[bytes], rate: float, seconds: float, what: Callable[[], Any]
) -> tuple[list[Seen], Any]:
    """Send requests at a rate, and run an action in a thread meanwhile."""
    trace = poisson("", rate, seconds, random.Random(0))
    sending = asyncio.create_task(Sender(*address, images).follow(trace.times, TIMEOUT_S))
    await asyncio.sleep(seconds / 4)
    done = await asyncio.to_thread(what)
    return await sending, done


def fates(seen: Sequence[Seen], seconds: float) -> dict[str, Any]:
    """Summarise the outcomes of requests, with the slowest."""
    figures = summary(seen, seconds, 0.5)
    codes = dict(Counter(one.code or str(one.status) for one in seen if one.status != 200))
    return {
        "sent": figures["offered"],
        "answered": figures["answered"],
        "not_answered": codes,
        "p50_ms": figures["p50_ms"],
        "slowest_ms": max((one.seconds * 1000 for one in seen if one.status == 200), default=None),
    }


class Scenes:
    """The scenes, in order.

    Args:
        ours: the cluster.
        plain: the plain server, on one core as an engine has.
        images: JPEGs.
        seconds: of each load.
    """

    def __init__(self, ours: Cluster, plain: Server, images: Sequence[bytes], seconds: float) -> None:
        self._ours = ours
        self._plain = plain
        self._images = images
        self._seconds = seconds
        self._alone = 0.0

    async def parity(self) -> dict[str, Any]:
        """Compare the results with those of the plain server."""
        return await asyncio.to_thread(parity, self._ours.url, self._plain.url, photos(SAMPLES))

    async def overhead(self) -> dict[str, Any]:
        """Measure the latency that Ray adds."""
        servers = {"ray": self._ours.address, "plain": self._plain.address}
        found = await overhead(servers, self._images, self._seconds)
        found["ms_a_request"] = found["ray"]["p50_ms"] - found["plain"]["p50_ms"]
        return found

    async def throughput(self) -> dict[str, Any]:
        """Compare two engines of one core each with one."""
        found = {"plain, one core": await throughput(self._plain.address, self._images, self._seconds / 3, 3)}
        found["ray, one engine"] = await throughput(self._ours.address, self._images, self._seconds / 3, 3)
        self._alone = statistics.median(found["ray, one engine"])
        await asyncio.to_thread(self._ours.engines, 2)
        found["ray, two engines"] = await throughput(self._ours.address, self._images, self._seconds / 3, 3)
        quotient = statistics.median(found["ray, two engines"]) / self._alone
        return {"images_per_s": found, "two_over_one": quotient}

    async def killed(self) -> dict[str, Any]:
        """Kill one of two engines under load."""

        def kill() -> float:
            os.kill(self._ours.pids()[0], signal.SIGKILL)
            return self._ours.wait(1, settled=False) + self._ours.wait(2)

        seen, back_s = await self._loaded(kill)
        return {**fates(seen, self._seconds), "two_engines_again_s": back_s}

    async def model_changed(self) -> dict[str, Any]:
        """Change the model by `user_config` in the running replicas, under load."""
        seen, took_s = await self._loaded(lambda: self._timed(user_config={"model": TWIN}))
        async with httpx.AsyncClient() as client:
            default = (await client.get(f"{self._ours.url}/models")).json()["default"]
        return {**fates(seen, self._seconds), "took_s": took_s, "default_after": default}

    async def replaced(self) -> dict[str, Any]:
        """Change a setting that replaces all replicas, under load."""

        def change() -> float:
            begin = time.monotonic()
            self._ours.engines(2, arguments={"max_queue_requests": 500})
            return time.monotonic() - begin

        seen, took_s = await self._loaded(change)
        return {**fates(seen, self._seconds), "took_s": took_s}

    async def by_load(self) -> dict[str, Any]:
        """Load one engine with twice its dense capacity, then not at all."""
        scaling = yaml.safe_load(CONFIG.read_text())["applications"][0]["deployments"][1][
            "autoscaling_config"
        ]
        scaling |= {"min_replicas": 1, "max_replicas": 2, "look_back_period_s": 4}
        scaling |= {"upscale_delay_s": 2, "downscale_delay_s": 6}
        await asyncio.to_thread(self._ours.engines, autoscaling_config=scaling)
        await asyncio.to_thread(self._ours.wait, 1)
        begin = time.monotonic()
        counts: list[tuple[float, int]] = []
        load_s = 3 * self._seconds
        trace = poisson("", 1.2 * self._alone, load_s, random.Random(1))
        sending = asyncio.create_task(
            Sender(*self._ours.address, self._images).follow(trace.times, TIMEOUT_S)
        )
        while time.monotonic() - begin < load_s + TIMEOUT_S:
            number = await asyncio.to_thread(self._ours.running)
            if not counts or counts[-1][1] != number:
                counts.append((round(time.monotonic() - begin, 1), number))
            if sending.done() and number == 1:
                break
            await asyncio.sleep(0.5)
        seen = await sending
        return {**fates(seen, load_s), "load_s": load_s, "engines_since": counts}

    async def _loaded(self, what: Callable[[], Any]) -> tuple[list[Seen], Any]:
        """Return 30 % of the capacity of one engine."""
        return await meanwhile(self._ours.address, self._images, 0.3 * self._alone, self._seconds, what)

    def _timed(self, **changed: Any) -> float:
        begin = time.monotonic()
        self._ours.engines(2, **changed)
        return time.monotonic() - begin
