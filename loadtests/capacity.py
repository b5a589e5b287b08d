"""Simulates 1, 10 and 100 replicas behind a load balancer, after a check against a measurement of one."""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from operator import methodcaller
from pathlib import Path
from typing import Any

from arrivals import bursty
from balanced import Cluster, Failures
from calibrated import VARIANTS, Measurement, check, read, show, speed_of
from capacity_plot import draw
from capacity_tables import check_rows, cost_rows
from elastic_report import summary
from pictures import pictures
from report import save
from simulated import Network, Service, Speed

from prunepool.imaging import ImageLimits, Preprocess, decode

#: Mean loads, as shares of the dense capacity.
LOADS = {"dense": (0.3, 0.5, 0.7, 0.9), "auto": (0.7, 0.9, 1.1, 1.3, 1.5)}
#: Latency within which a response counts, and the target of `auto`.
TARGET_S = 1.0
NETWORK = Network()
ROUTINGS = {1: ("random",), 10: ("random", "two", "least"), 100: ("random", "least")}
#: Simulated, for each number of replicas: about as many requests for each.
SECONDS = {1: 120.0, 10: 30.0, 100: 6.0}


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the curves.

    Attributes:
        replicas: how many.
        load: mean arrivals over what all of them can do dense.
        variant: `dense` or `auto`.
        routing: as :class:`Cluster`.
        dies_every_s: mean time between deaths of a replica; None: none dies.
    """

    replicas: int
    load: float
    variant: str
    routing: str
    dies_every_s: float | None

    def simulated(self, speed: Speed) -> dict[str, Any]:
        """Simulate bursts of 0.6 to 1.4 times the mean load, each of 1 to 4 s."""
        number, seconds = self.replicas, SECONDS[self.replicas]
        rate = self.load * number * dense_capacity(speed, NETWORK)
        trace = bursty("", 0.6 * rate, 1.4 * rate, seconds, random.Random(number))
        service = Service(TARGET_S, VARIANTS[self.variant], NETWORK)
        failures = Failures(math.inf if self.dies_every_s is None else self.dies_every_s)
        cluster = Cluster(number, service, speed, routing=self.routing, failures=failures, seed=number)
        figures = summary(cluster.run(trace.times), seconds, TARGET_S)
        wanted = ("offered", "attainment", "refused", "mean_ratio", "p50_ms", "p99_ms")
        return asdict(self) | {"deaths": cluster.deaths} | {name: figures[name] for name in wanted}


def dense_capacity(speed: Speed, network: Network) -> float:
    """Images a second of one replica, dense, in the batches that the target allows."""
    size = 1
    while speed.plain((0.0,) * (size + 1), network) <= Service(TARGET_S, None, network).limits.max_batch_s:
        size += 1
    return size / speed.plain((0.0,) * size, network)


def cost(rows: Sequence[dict[str, Any]], capacity: float, share: float) -> list[dict[str, Any]]:
    """Replicas for 1,000 images a second with a share of them in time, by the largest load that has it."""
    found = []
    kinds = dict.fromkeys((r["replicas"], r["variant"], r["routing"], r["dies_every_s"]) for r in rows)
    for kind in kinds:
        points = [r for r in rows if (r["replicas"], r["variant"], r["routing"], r["dies_every_s"]) == kind]
        good = [r["load"] for r in points if r["attainment"] >= share]
        best = max(good, default=None)
        number, variant, routing, dies = kind
        found.append(
            {
                "replicas": number,
                "variant": variant,
                "routing": routing,
                "dies_every_s": dies,
                "largest_load": best,
                "replicas_per_1000_a_second": None if best is None else 1000 / (best * capacity),
            }
        )
    return found


def decodes_a_second(seconds: float) -> dict[str, float]:
    """Measure how many generated JPEGs of two sizes one core decodes, crops and resizes."""
    found = {}
    for name, size in (("300x300", (300, 300)), ("500x375", (500, 375)), ("1600x1200", (1600, 1200))):
        images = pictures(8, *size)
        begin, done = time.process_time(), 0
        while time.process_time() - begin < seconds:
            decode(images[done % len(images)], Preprocess(224, 0.9), ImageLimits(50_000_000))
            done += 1
        found[name] = done / (time.process_time() - begin)
        found[f"{name} bytes"] = statistics.mean(map(len, images))
    return found


def curves(speed: Speed) -> list[dict[str, Any]]:
    """Simulate all points, in one process for each core."""
    points = [
        Point(number, load, variant, routing, dies_every_s)
        for number, routings in ROUTINGS.items()
        for dies_every_s in ((None, 120.0) if number == 10 else (None,))
        for variant, routing in product(LOADS, routings)
        for load in LOADS[variant]
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(methodcaller("simulated", speed), points))


def main() -> None:
    """Check, simulate, draw; ends with 1 if the check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check against the measurement")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    wanted = parser.parse_args()
    measured = Measurement.of(read("elastic.json"))
    speed = speed_of(measured, NETWORK)
    checked = check(measured, speed, NETWORK)
    good = show(checked)
    if wanted.check or not good:
        sys.exit(not good)
    found = curves(speed)
    capacity = dense_capacity(speed, NETWORK)
    costs = cost(found, capacity, 0.99)
    report = {
        "speed": {name: getattr(speed, name) for name in Speed.__dataclass_fields__},
        "dense_images_per_s": capacity,
        "target_s": TARGET_S,
        "measurement": asdict(measured),
        "check": checked,
        "cost": costs,
        "decodes_per_core_s": decodes_a_second(1.0),
        "points": found,
    }
    print(*check_rows(checked), "", *cost_rows(costs), "", sep="\n")
    print(report["speed"], f"dense: {capacity:.1f} images/s")
    print(report["decodes_per_core_s"])
    if wanted.json:
        save(report, wanted.json)
    if wanted.plot:
        draw(found, wanted.plot)


if __name__ == "__main__":
    main()
