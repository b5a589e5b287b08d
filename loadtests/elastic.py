"""Overload on real servers: does `auto` hold its latency target when the dense model and a fixed ratio do not?

Servers, `dense` (ratio 0), `fixed` (0.755), `auto`, and `mixed` (requests of every kind), take turns on the same
machine under the same traces, which are open loop: arrivals wait for no answer. What the dense one can do at most
is measured first, and again before each trace; the rates are shares of that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import torch
import uvloop
from arrivals import Trace, bursty, poisson, step
from elastic_report import draw, effective_accuracy, quantile, share_below, summary
from observed import Scrape
from open_loop import Seen, Sender
from pictures import pictures
from random_model import random_model
from report import save, without
from servers import Server, serving

from prunepool.lab.environment import environment

FIXED = 0.755
#: Default reduction ratio of the server of each variant; the requests of `mixed` name the ratios below.
VARIANTS = {"dense": "0", "fixed": str(FIXED), "auto": "auto", "mixed": "auto"}
MIXED = tuple(f"reduction_ratio={ratio}" for ratio in ("0", "0.3", "0.5", FIXED, "auto"))
TRACES = ("calm", "overload", "bursty", "step")
ERROR_LIMIT = 0.15
CLIENTS = 24
#: How long the last requests of a trace may take.
TIMEOUT_S = 20.0


class Run:
    """A run over all traces.

    Args:
        servers: by variant.
        images: encoded JPEGs.
        target_s: of `auto`, and what an answer is judged by.
        seconds: of each trace.
        rounds: how often each trace is run with each variant.
        kinds: of traces.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        images: list[bytes],
        *,
        target_s: float,
        seconds: float,
        rounds: int,
        kinds: Sequence[str] = TRACES,
    ) -> None:
        self._servers = servers
        self._kinds = kinds
        self._senders = {
            name: Sender(*server.address, images, *(MIXED if name == "mixed" else ()))
            for name, server in servers.items()
        }
        self._images = images
        self._target_s = target_s
        self._seconds = seconds
        self._rounds = rounds
        self.info = httpx.get(f"{servers['dense'].url}/models").json()["models"][0]
        self.first_round: dict[str, dict[str, list[Seen]]] = {}

    async def capacity(self, seconds: float, turns: int) -> dict[str, float]:
        """Measure saturated images/s: dense, at the fixed ratio and at auto's largest ratio."""
        most = self.info["max_reduction_ratio"] - 1e-4
        queries = {"dense": "reduction_ratio=0", "fixed": f"reduction_ratio={FIXED}"}
        queries["largest"] = f"reduction_ratio={most:.4f}"
        found: dict[str, list[float]] = {name: [] for name in queries}
        for turn in range(turns + 1):
            for name, query in queries.items():
                sender = Sender(*self._servers["dense"].address, self._images, query)
                rate = await sender.saturate(CLIENTS, seconds if turn else 1.0)
                sender.close()
                if turn:
                    found[name].append(rate)
        return {name: statistics.median(rates) for name, rates in found.items()}

    async def traces(self, load: float, calm: float) -> list[dict[str, Any]]:
        """Run every trace with every variant."""
        rows = []
        for number in range(self._rounds):
            for kind in self._kinds:
                found = await self.capacity(3.0, 1)
                trace = self._trace(kind, found["dense"], load, calm, random.Random(number))
                for name in self._servers:
                    print(f"round {number + 1}, {trace.name}, {name}", file=sys.stderr, flush=True)
                    rows.append(
                        {"round": number + 1, "capacity": found, **await self._phase(trace, name, number)}
                    )
        return rows

    def _trace(self, kind: str, dense: float, load: float, calm: float, source: random.Random) -> Trace:
        if kind == "calm":
            return poisson(f"Poisson, {calm:g} × dense", calm * dense, self._seconds, source)
        if kind == "overload":
            return poisson(f"Poisson, {load:g} × dense", load * dense, self._seconds, source)
        if kind == "bursty":
            return bursty(
                f"bursts, 0.4 to {load:g} × dense", 0.4 * dense, load * dense, self._seconds, source
            )
        return step(f"step, 0.5 to {load:g} × dense", 0.5 * dense, load * dense, self._seconds, source)

    async def _phase(self, trace: Trace, name: str, number: int) -> dict[str, Any]:
        before = self._errors(name)
        seen = await self._senders[name].follow(trace.times, TIMEOUT_S)
        after = self._errors(name)
        if number == 0:
            self.first_round.setdefault(trace.name, {})[name] = seen
        return {
            "trace": trace.name,
            "variant": name,
            **summary(seen, trace.seconds, self._target_s),
            "effective_accuracy": effective_accuracy(seen, self.info.get("profile")),
            "prediction_error_p50": quantile(before, after, 0.5),
            "prediction_error_p90": quantile(before, after, 0.9),
            "predictions_within_15_percent": share_below(before, after, ERROR_LIMIT),
        }

    def _errors(self, name: str) -> dict[float, float]:
        """The buckets of the prediction error's histogram."""
        samples = Scrape(self._servers[name]).samples("prunepool_prediction_error_ratio_bucket")
        return {float(labels["le"]): value for labels, value in samples}


def show(report: dict[str, Any]) -> None:
    """Print the rows as a table."""
    found = report["capacity"]
    print(
        f"capacity, images/s: dense {found['dense']:.1f}, at {FIXED} {found['fixed']:.1f}, "
        f"at the largest ratio {found['largest']:.1f} (×{found['largest'] / found['dense']:.2f})"
    )
    head = ("trace", "variant", "offered/s", "goodput/s", "in target", "refused", "ratio", "p50 ms", "p99 ms")
    print("  ".join(f"{word:>10}" for word in (*head, "p50 error", "p90 error")))
    for row in report["rows"]:
        figures = (
            f"{row['offered_per_s']:.1f}",
            f"{row['goodput_per_s']:.1f}",
            f"{row['attainment']:.2%}",
            str(sum(row["refused"].values())),
            _shown(row["mean_ratio"], ".3f"),
            _shown(row["p50_ms"], ".0f"),
            _shown(row["p99_ms"], ".0f"),
            _shown(row["prediction_error_p50"], ".1%"),
            _shown(row["prediction_error_p90"], ".1%"),
        )
        print(f"{row['trace']:>24}  {row['variant']:>6}  " + "  ".join(f"{word:>9}" for word in figures))


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def main() -> None:
    """Run, report, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="deit_tiny_imagenette")
    parser.add_argument("--model-store", default="model_store")
    parser.add_argument("--architecture", help="a timm architecture with random weights instead of a model")
    parser.add_argument(
        "--dtype", default="float32", help="of every server, so that machines can be compared"
    )
    parser.add_argument("--target-ms", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a trace")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--load", type=float, default=1.4, help="overload, as a multiple of the dense capacity"
    )
    parser.add_argument(
        "--calm",
        type=float,
        default=0.65,
        help="load that needs no reduction, as a multiple of the dense capacity",
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["dense", "fixed", "auto"])
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=TRACES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    wanted = parser.parse_args()
    with ExitStack() as stack:
        store, model, made = wanted.model_store, wanted.model, None
        if wanted.architecture:
            store = made = stack.enter_context(tempfile.TemporaryDirectory())
            model = random_model(wanted.architecture, Path(store))
        common = ["--model", model, "--model-store", store, "--dtype", wanted.dtype]
        # PyTorch, since a model that is converted meanwhile changes its speed in between.
        common += ["--cpu-openvino", "false", "--target-latency-ms", f"{wanted.target_ms:g}"]
        servers = {
            name: stack.enter_context(serving(name, [*common, "--default-reduction-ratio", VARIANTS[name]]))
            for name in dict.fromkeys(["dense", *wanted.variants])
        }
        run = Run(
            servers,
            pictures(),
            target_s=wanted.target_ms / 1000,
            seconds=wanted.seconds,
            rounds=wanted.rounds,
            kinds=wanted.traces,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            capacity = runner.run(run.capacity(4.0, 3))
            rows = runner.run(run.traces(wanted.load, wanted.calm))
        report = {
            "model": run.info["name"],
            "architecture": run.info["architecture"],
            "dtype": run.info["dtype"],
            "target_ms": wanted.target_ms,
            "load": wanted.load,
            "calm": wanted.calm,
            "environment": environment(torch.device("cpu")),
            "servers": {name: without(made, server.flags) for name, server in servers.items()},
            "capacity": capacity,
            "rows": rows,
        }
    show(report)
    if wanted.json:
        save(report, wanted.json)
    if wanted.plot:
        draw(report, run.first_round, wanted.plot)


if __name__ == "__main__":
    main()
