"""The simulation of replicas reproduces the measurement of one, and loses no request."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import calibrated
import pytest
from arrivals import poisson
from balanced import Cluster, Failures
from calibrated import MOST_OFF, Measurement, check, read, show, simulate, speed_of
from capacity import dense_capacity
from simulated import Network, Service, Speed

NETWORK = Network()


@pytest.fixture(scope="module")
def speed() -> Speed:
    """The device that the committed report speaks of."""
    return Speed(**read("capacity.json")["speed"])


def test_it_reproduces_the_measurement_of_one_machine(speed: Speed) -> None:
    measured = read("capacity.json")["measurement"]
    checked = check(Measurement(**measured), speed, NETWORK, seeds=1)
    assert len(checked) == 12
    assert max(abs(one["attainment_off"]) for one in checked) <= MOST_OFF
    auto = [one for one in checked if one["variant"] == "auto"]
    assert all(abs(one["ratio_off"]) <= 0.1 for one in auto)


def test_a_device_is_recovered_from_its_dense_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measurement.of(read("elastic.json"))

    def found(fronts: tuple[float, ...], rests: tuple[float, ...], slower: tuple[float, ...]) -> Speed:
        for name, values in (("FRONTS_S", fronts), ("RESTS_S", rests), ("SLOWER", slower)):
            monkeypatch.setattr(calibrated, name, values)
        return speed_of(measured, NETWORK, seeds=1)

    device = found((0.03,), (0.015,), (1.04,))
    rows = list(measured.rows)
    for row in range(0, len(rows), 3):
        rows[row] = rows[row] | simulate(row, measured, device, NETWORK, seeds=1)
    measured = replace(measured, rows=tuple(rows))
    assert found((0.02, 0.03), (0.0, 0.015), (1.0, 1.04)) == device


def test_a_batch_takes_longer_on_an_idle_device() -> None:
    quiet = Speed(0.01, 0.02, 0.0, 0.005, 0.003, 0.0, 0.0)
    run_s = 0.01 + 0.02 * NETWORK.gmacs(0.0) + 0.003
    seen = Cluster(1, Service(1.0, 0.0, NETWORK), quiet).run([0.0, 1.0, 1.0 + run_s + 0.01])
    assert [one.seconds for one in seen] == pytest.approx([run_s + 0.005, run_s + 0.005, run_s])


def test_the_committed_report_passed_the_check_against_one_machine() -> None:
    assert show(read("capacity.json")["check"])


@pytest.mark.parametrize("routing", ["random", "two", "least"])
def test_every_request_has_one_outcome_when_replicas_fail(speed: Speed, routing: str) -> None:
    service = Service(1.0, None, NETWORK)
    cluster = Cluster(3, service, speed, routing=routing, failures=Failures(10.0, 2.0), seed=1)
    times = poisson("", 30.0, 20.0, random.Random(1)).times
    seen = cluster.run(times)
    assert cluster.deaths
    assert sorted(one.at for one in seen) == sorted(times)
    assert set(Counter(one.status for one in seen)) <= {200, 503}
    assert all(one.seconds >= 0 and math.isfinite(one.seconds) for one in seen)


def test_least_requests_answers_more_in_time_than_random_routing(speed: Speed) -> None:
    rate = 0.94 * 4 * dense_capacity(speed, NETWORK)

    def in_time(routing: str) -> int:
        cluster = Cluster(4, Service(1.0, 0.0, NETWORK), speed, routing=routing, seed=2)
        seen = cluster.run(poisson("", rate, 30.0, random.Random(2)).times)
        return sum(one.status == 200 and one.seconds <= 1.0 for one in seen)

    assert in_time("least") > in_time("random")
