"""The device that capacity.py simulates, and its error against the measurement.

The device is that of docs/benchmarks/elastic.json: two cores and DeiT-S. What it takes is not fitted
to what is checked: a run's time by images and ratio comes from docs/benchmarks/capacity-device.json, the benchmark
of the bare model that was current when elastic.json was measured; what an image costs beside the model, from the
closed-loop capacities of elastic.json; what a request takes outside of the queue, what a rest costs and how fast
the machine was in those minutes, from its phases with `dense`. Those with `fixed` and `auto` check it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import orjson
from arrivals import Trace, bursty, poisson, step
from balanced import Cluster
from elastic_report import summary
from simulated import Network, Service, Speed

from prunepool.core.cost_model import CostModel, Effort, TimedBatch

BENCHMARKS = Path(__file__).resolve().parent.parent / "docs/benchmarks"
FIXED = 0.755
#: How far the simulation may be from the measurement: answers in time, as a share of all that were asked for, and
#: the median latency, as a share of the measured one.
MOST_OFF = 0.15
#: Figures of a phase that are compared.
FIGURES = ("attainment", "p50_ms", "p99_ms", "mean_ratio")
#: A phase keeps up if so many of its answers are in time; where a queue grows, its p50 says little.
KEEPS_UP = 0.9
#: Seeds of the noise, for each round. What `auto` does depends on chance: one run's p50 may be a quarter off the
#: median of many.
SEEDS, CHECK_SEEDS = 3, 7
VARIANTS: dict[str, float | None] = {"dense": 0.0, "fixed": FIXED, "auto": None}
TRACES = 4
PHASES = TRACES * len(VARIANTS)
FRONTS_S, RESTS_S = (0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04), (0.0, 0.005, 0.01, 0.015, 0.02, 0.025)
#: Factors on all that the device does.
SLOWER = tuple(1 + 0.01 * step for step in range(-5, 9))
#: The normal distribution is within so many standard deviations of its mean with nine in ten.
_NINE_IN_TEN = 1.645


def read(name: str) -> dict[str, Any]:
    """Read a report in the repository."""
    found: dict[str, Any] = orjson.loads((BENCHMARKS / name).read_bytes())
    return found


@dataclass(frozen=True, slots=True)
class Measurement:
    """A run of loadtests/elastic.py: every trace with every variant, in one or more rounds.

    Attributes:
        rows: as it reported them, round after round, those of one trace next to each other.
        load: the overload, as a multiple of the dense capacity.
        calm: the load that needs no reduction, likewise.
        target_ms: of `auto`, and what an answer is judged by.
    """

    rows: tuple[dict[str, Any], ...]
    load: float
    calm: float
    target_ms: float

    @classmethod
    def of(cls, report: dict[str, Any]) -> Measurement:
        """Read the run from its report."""
        rows = tuple(report["rows"])
        rounds = rows[-1]["round"]
        assert [row["variant"] for row in rows] == list(VARIANTS) * TRACES * rounds, "not all in each round"
        return cls(rows, report["load"], report["calm"], report["target_ms"])

    def phases(self, *variants: str) -> list[list[int]]:
        """Rows of one trace and variant, in order of the traces: what all rounds saw of one phase."""
        first = [number for number in range(PHASES) if self.rows[number]["variant"] in variants]
        return [list(range(number, len(self.rows), PHASES)) for number in first]

    def trace(self, number: int) -> Trace:
        """Make the same arrivals as in the run."""
        row = self.rows[number]
        dense, seconds = row["capacity"]["dense"], row["offered"] / row["offered_per_s"]
        source = random.Random(row["round"] - 1)
        made = (
            lambda: poisson("", self.calm * dense, seconds, source),
            lambda: poisson("", self.load * dense, seconds, source),
            lambda: bursty("", 0.4 * dense, self.load * dense, seconds, source),
            lambda: step("", 0.5 * dense, self.load * dense, seconds, source),
        )[number % PHASES // len(VARIANTS)]()
        assert len(made.times) == row["offered"], "these are not the arrivals of the measurement"
        return made

    def service(self, ratio: float | None, network: Network) -> Service:
        """Return the settings of the measured servers."""
        return Service(self.target_ms / 1000, ratio, network)


def bare(network: Network) -> CostModel:
    """Read the time of the model alone from its benchmark."""
    rows = [row for row in read("capacity-device.json")["rows"] if row["ratio"] is not None]
    model = CostModel()
    model.fit(
        [
            TimedBatch(_batch(row["batch"], row["ratio"], network), row["batch"] / row["images_per_s"])
            for row in rows
        ]
    )
    return model


def _batch(size: int, ratio: float, network: Network) -> Effort:
    return Effort(1, size * network.gmacs(ratio), 0, size * (ratio > 0))


def beside_the_model(model: CostModel, measured: Measurement, network: Network) -> float:
    """Seconds that an image costs beside the model: the median over the capacities that were measured."""
    ratios = {"dense": 0.0, "fixed": FIXED, "largest": network.max_ratio - 1e-4}
    limit_s = measured.service(None, network).limits.max_batch_s
    found = []
    for row in measured.rows[:: len(VARIANTS)]:
        for name, ratio in ratios.items():
            size = 1
            while model.seconds(_batch(size + 1, ratio, network)) <= limit_s:
                size += 1
            found.append(1 / row["capacity"][name] - model.seconds(_batch(size, ratio, network)) / size)
    return statistics.median(found)


def simulate(
    number: int, measured: Measurement, speed: Speed, network: Network, seeds: int = SEEDS
) -> dict[str, float]:
    """The figures of a measured row, simulated: medians over seeds of the noise; the arrivals are the same."""
    trace = measured.trace(number)
    service = measured.service(VARIANTS[measured.rows[number]["variant"]], network)
    runs = [
        summary(Cluster(1, service, speed, seed=seed).run(trace.times), trace.seconds, service.target_s)
        for seed in range(seeds)
    ]
    return {name: statistics.median(run[name] for run in runs) for name in FIGURES}


def speed_of(measured: Measurement, network: Network, seeds: int = SEEDS) -> Speed:
    """The device of the measurement, from its phases with `dense` and what was measured elsewhere.

    Args:
        measured: where the phases with `dense` are from.
        network: what a ratio costs.
        seeds: of the noise, for each device that is tried.
    """
    model = bare(network)
    a, b, d = (model.coefficients[name] for name in ("runs", "gmacs", "reduced"))
    image_s = beside_the_model(model, measured, network)
    calm, *busy = measured.phases("dense")
    errors = [row["prediction_error_p90"] for row in measured.rows if row["variant"] == "dense"]
    noise = statistics.median(errors) / _NINE_IN_TEN

    def made(slower: float, front: tuple[float, float]) -> Speed:
        front_s, idle_penalty_s = front
        return Speed(a * slower, b * slower, d * slower, idle_penalty_s, image_s * slower, noise, front_s)

    def off(speed: Speed, phases: Sequence[Sequence[int]]) -> float:
        """Sum over the phases; of the rounds of a phase, the median: a disturbed one does not decide."""
        found = [
            [(simulate(row, measured, speed, network, seeds), measured.rows[row]) for row in rounds]
            for rounds in phases
        ]
        return sum(
            statistics.median(abs(s[name] / m[name] - 1) for s, m in rounds)
            for rounds in found
            for name in ("p50_ms", "p99_ms")
        )

    # Where there is a queue, neither the way to it nor a rest matters.
    slower = min(SLOWER, key=lambda slower: off(made(slower, (FRONTS_S[0], RESTS_S[0])), busy))
    front = min(product(FRONTS_S, RESTS_S), key=lambda front: off(made(slower, front), [calm]))
    return made(slower, front)


def check(
    measured: Measurement, speed: Speed, network: Network, seeds: int = CHECK_SEEDS
) -> list[dict[str, Any]]:
    """Return every phase, measured and simulated: medians over the rounds, of the errors too."""
    found = []
    for rounds in measured.phases(*VARIANTS):
        rows = [measured.rows[number] for number in rounds]
        simulated = [simulate(number, measured, speed, network, seeds) for number in rounds]
        pairs = list(zip(rows, simulated, strict=True))
        found.append(
            {
                "trace": rows[0]["trace"],
                "variant": rows[0]["variant"],
                "measured": {name: statistics.median(row[name] for row in rows) for name in FIGURES},
                "simulated": {name: statistics.median(one[name] for one in simulated) for name in FIGURES},
                "attainment_off": statistics.median(s["attainment"] - m["attainment"] for m, s in pairs),
                "p50_off": statistics.median(s["p50_ms"] / m["p50_ms"] - 1 for m, s in pairs),
                "p99_off": statistics.median(s["p99_ms"] / m["p99_ms"] - 1 for m, s in pairs),
                "ratio_off": statistics.median(s["mean_ratio"] - m["mean_ratio"] for m, s in pairs),
            }
        )
    return found


def show(checked: Sequence[dict[str, Any]]) -> bool:
    """The phases as a table; whether all are close enough.

    The p50 may be further off where a variant does not keep up: while its queue grows, that moves by several
    percent with each percent of the machine's speed. `dense` is never held to it: it does not check the device but
    makes it.
    """
    for one in checked:
        m, s = one["measured"], one["simulated"]
        print(
            f"{one['trace']:>24} {one['variant']:>6}  in time {m['attainment']:6.1%} → {s['attainment']:6.1%}"
            f"  p50 {m['p50_ms']:5.0f} → {s['p50_ms']:5.0f} ms ({one['p50_off']:+.0%})"
            f"  p99 {m['p99_ms']:5.0f} → {s['p99_ms']:5.0f} ms ({one['p99_off']:+.0%})"
            f"  ratio {m['mean_ratio']:.2f} → {s['mean_ratio']:.2f}"
        )
    attainment = max(abs(one["attainment_off"]) for one in checked)
    free = [
        abs(one["p50_off"])
        for one in checked
        if one["variant"] != "dense" and one["measured"]["attainment"] >= KEEPS_UP
    ]
    near = sum(abs(one["p50_off"]) <= MOST_OFF for one in checked)
    print(
        f"answers in time, of all asked for: off by {attainment:.1%} at most; p50 of fixed and auto where they keep"
        f" up: by {max(free):.1%} at most; {MOST_OFF:.0%} is allowed of each"
        f" (p50 of all: within that in {near} of {len(checked)} phases)"
    )
    return bool(max(attainment, *free) <= MOST_OFF)
