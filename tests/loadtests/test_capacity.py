"""The simulation of many replicas is held against the measurement of one, and loses nothing of its own."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from arrivals import poisson
from balanced import Cluster, Failures
from calibrated import MOST_OFF, Measurement, check, read
from simulated import Network, Service, Speed

NETWORK = Network()


@pytest.fixture(scope="module")
def speed() -> Speed:
    """The device that the committed report speaks of."""
    return Speed(**read("capacity.json")["speed"])


def test_it_reproduces_the_measurement_of_one_machine(speed: Speed) -> None:
    measured = read("capacity.json")["measurement"]
    checked = check(Measurement(**measured), speed, NETWORK, seeds=3)
    assert len(checked) == 12
    assert max(abs(one["attainment_off"]) for one in checked) <= MOST_OFF
    auto = [one for one in checked if one["variant"] == "auto"]
    assert all(abs(one["simulated"]["mean_ratio"] - one["measured"]["mean_ratio"]) <= 0.1 for one in auto)


@pytest.mark.parametrize("routing", ["random", "two", "least"])
def test_every_request_has_one_fate_though_replicas_die(speed: Speed, routing: str) -> None:
    service = Service(1.0, None, NETWORK)
    cluster = Cluster(3, service, speed, routing=routing, failures=Failures(10.0, 2.0), seed=1)
    times = poisson("", 30.0, 20.0, random.Random(1)).times
    seen = cluster.run(times)
    assert cluster.deaths
    assert sorted(one.at for one in seen) == sorted(times)
    assert set(Counter(one.status for one in seen)) <= {200, 503}
    assert all(one.seconds >= 0 and math.isfinite(one.seconds) for one in seen)


def test_least_requests_answers_more_in_time_than_chance_does(speed: Speed) -> None:
    def in_time(routing: str) -> int:
        cluster = Cluster(4, Service(1.0, 0.0, NETWORK), speed, routing=routing, seed=2)
        seen = cluster.run(poisson("", 44.0, 30.0, random.Random(2)).times)
        return sum(one.status == 200 and one.seconds <= 1.0 for one in seen)

    assert in_time("least") > in_time("random")


def test_a_replica_of_one_core_takes_as_long_as_its_speed_says() -> None:
    quiet = Speed(0.01, 0.02, 0.001, 0.003, 0.0, 0.0)
    (seen,) = Cluster(1, Service(1.0, 0.0, NETWORK), quiet).run([0.0])
    assert seen.seconds == pytest.approx(0.01 + 0.02 * NETWORK.gmacs(0.0) + 0.003)
