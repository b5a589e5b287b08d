"""Measure throughput and latency of a running server with closed-loop clients."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from prunepool import processor
from prunepool.client import Client
from prunepool.client.connection import ConnectionSettings, translated_errors
from prunepool.client.wire import read_response


@dataclass(frozen=True, slots=True)
class HttpRow:
    """What clients measured at one reduction ratio.

    Attributes:
        ratio: as requested: a number, or `auto`.
        clients: number of concurrent clients.
        images: number of images that were answered.
        failed: number of responses other than 200.
        images_per_s: median over the phases.
        phases: images/s of each phase.
        p50_ms: median latency over all phases.
        p99_ms: 99th percentile over all phases.
    """

    ratio: str
    clients: int
    images: int
    failed: int
    images_per_s: float
    phases: tuple[float, ...]
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Served:
    """What answers, by its own account, and the processor that it runs on.

    Attributes:
        model: the default model.
        device: where it runs.
        dtype: what it computes in.
        processor: name of this machine's processor; None if the server is on another machine.
        instructions: that this processor has; None likewise.
    """

    model: str
    device: str
    dtype: str
    processor: str | None
    instructions: tuple[str, ...] | None

    def __str__(self) -> str:
        """In one line, for below a table."""
        where = "another machine"
        if self.instructions is not None:
            where = f"{self.processor} ({processor.summary(self.instructions)})"
        return f"{self.model} on {self.device} in {self.dtype}; {where}"


def described(url: str, api_key: str | SecretStr | None = None) -> Served:
    """Ask a server what it serves, and in which dtype.

    Raises:
        PrunepoolError: it cannot be reached, or refuses.
    """
    with Client(url, api_key=api_key) as client:
        info = client.models()[0]
    here = httpx.URL(url).host in ("localhost", "127.0.0.1", "::1")
    name, flags = (processor.name(), processor.instructions()) if here else (None, None)
    return Served(info.name, info.device, info.dtype, name, flags)


class HttpBenchmark:
    """Closed loop: each client sends its next image when the last one is answered.

    The settings alternate in short phases, so that a slow minute of the machine affects all of them.

    Args:
        url: of the server.
        images: encoded images, sent one after the other.
        clients: number of concurrent clients.
        seconds: length of each phase.
        phases: number of phases of each setting.
        api_key: for a server that requires one.

    Raises:
        InvalidParameter: the URL or the key is invalid.
    """

    def __init__(
        self,
        url: str,
        images: Sequence[bytes],
        *,
        clients: int,
        seconds: float,
        phases: int,
        api_key: str | SecretStr | None = None,
    ) -> None:
        self._connection = ConnectionSettings(url, api_key, timeout_s=60, connect_timeout_s=60).settings()
        self._images = itertools.cycle(images)
        self._clients = clients
        self._seconds = seconds
        self._phases = phases

    async def run(self, ratios: Sequence[str], advance: Callable[[], object] = lambda: None) -> list[HttpRow]:
        """Measure every setting.

        Raises:
            PrunepoolError: the server cannot be reached, or fails on the first image at the first setting.
        """
        latencies: dict[str, list[float]] = {ratio: [] for ratio in ratios}
        rates: dict[str, list[float]] = {ratio: [] for ratio in ratios}
        failed = dict.fromkeys(ratios, 0)
        limits = httpx.Limits(max_connections=self._clients)
        async with httpx.AsyncClient(**{**self._connection, "limits": limits}) as http:
            with translated_errors(http.base_url):
                read_response(await self._ask(http, ratios[0]))
                for ratio in ratios:
                    await self._phase(http, ratio, min(1.0, self._seconds))  # connections, caches, clocks
            for _ in range(self._phases):
                for ratio in ratios:
                    start = time.perf_counter()
                    seen, bad = await self._phase(http, ratio, self._seconds)
                    rates[ratio].append(len(seen) / (time.perf_counter() - start))
                    latencies[ratio] += seen
                    failed[ratio] += bad
                    advance()
        return [self._row(ratio, latencies[ratio], rates[ratio], failed[ratio]) for ratio in ratios]

    async def _phase(self, http: httpx.AsyncClient, ratio: str, seconds: float) -> tuple[list[float], int]:
        """The seconds of every answered request, and the number of refused or failed ones."""
        until = time.perf_counter() + seconds
        seen: list[float] = []
        failed = 0

        async def client() -> None:
            nonlocal failed
            while (start := time.perf_counter()) < until:
                answer = await self._ask(http, ratio)
                if answer.status_code == httpx.codes.OK:
                    seen.append(time.perf_counter() - start)
                else:
                    failed += 1

        await asyncio.gather(*(client() for _ in range(self._clients)))
        return seen, failed

    async def _ask(self, http: httpx.AsyncClient, ratio: str) -> httpx.Response:
        return await http.post(
            "/classify",
            params={"reduction_ratio": ratio},
            content=next(self._images),
            headers={"content-type": "image/jpeg"},
        )

    def _row(self, ratio: str, seconds: list[float], rates: list[float], failed: int) -> HttpRow:
        ordered = sorted(seconds) or [float("nan")]
        last = len(ordered) - 1
        return HttpRow(
            ratio=ratio,
            clients=self._clients,
            images=len(seconds),
            failed=failed,
            images_per_s=statistics.median(rates),
            phases=tuple(rates),
            p50_ms=ordered[round(0.5 * last)] * 1000,
            p99_ms=ordered[round(0.99 * last)] * 1000,
        )
