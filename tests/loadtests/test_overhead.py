"""The report of the overhead measurement, on made-up numbers; and one short real run."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from bare import backend_options
from cpu_use import CLIENT, DECODING, IDLE, LOOPS, MODEL, OTHERS, PARTS, REST, Reading, Spent, part_of, spent
from overhead_report import Phase, latency, overhead, tables
from resident import growth

from prunepool.machine import compute_threads


@pytest.mark.parametrize("openvino", [True, False])
def test_the_bare_model_has_as_many_threads_as_the_server_s(openvino: bool) -> None:
    """OpenVINO takes one unless it is told: the service then kept more than all of the bare model's throughput."""
    assert backend_options("int8", openvino=openvino).threads == compute_threads()


def reading(at: float, model: float, loop: float, client: float, busy: float, idle: float) -> Reading:
    return Reading(at, {(MODEL, 2): model, (MODEL, 3): model, (LOOPS, 1): loop}, client, busy, idle)


def phase(rate: float, *, client: float = 0.0, errors: tuple[str, ...] = (), off: float = 0.0) -> Phase:
    """Ten seconds on two cores."""
    seconds = {**dict.fromkeys(PARTS, 0.0), CLIENT: client, DECODING: 1.0, MODEL: 19.0 - client + off}
    return Phase(rate, (0.1, 0.2, 0.3), errors, Spent(seconds, 10.0, 2))


def test_threads_belong_to_parts_by_their_names() -> None:
    assert part_of("prunepool", main=True) == LOOPS
    assert part_of("model", main=False) == MODEL
    assert part_of("decode", main=False) == DECODING
    assert part_of("ZMQbg/IO/0", main=False) == REST


def test_the_cpu_time_is_the_difference_of_two_readings() -> None:
    before = reading(100.0, 50.0, 5.0, 1.0, 200.0, 300.0)
    found = spent(before, reading(110.0, 56.0, 6.5, 2.5, 216.0, 304.0), cores=2)
    assert found.seconds[MODEL] == 12.0
    assert found.seconds[LOOPS] == 1.5
    assert found.seconds[CLIENT] == 1.5
    assert found.seconds[OTHERS] == 1.0
    assert found.seconds[IDLE] == 4.0
    assert found.accounted == 1.0
    assert found.share(CLIENT) == 0.075


def test_a_thread_that_was_started_meanwhile_counts() -> None:
    before = Reading(0.0, {}, 0.0, 0.0, 0.0)
    found = spent(before, Reading(1.0, {(DECODING, 9): 0.5}, 0.0, 0.5, 0.5), cores=1)
    assert found.seconds[DECODING] == 0.5


def test_the_result_is_the_median_of_rounds_compared_one_by_one() -> None:
    """A machine that halves its speed in a round changes nothing."""
    http = [phase(9.5), phase(4.75), phase(9.0)]
    found = overhead("", "0", 8, [10.0, 5.0, 10.0], [0.1] * 3, http)
    assert found.kept == pytest.approx(0.95)
    assert (found.lowest, found.highest) == pytest.approx((0.9, 0.95))
    assert found.shown


def test_the_clients_share_of_the_cores_is_deducted() -> None:
    """Two of twenty core seconds: without it, ten ninths."""
    found = overhead("", "0", 8, [10.0], [0.1], [phase(9.0, client=2.0)])
    assert found.kept_without_client == pytest.approx(1.0)


def test_core_milliseconds_an_image_add_up_to_the_cores_time() -> None:
    found = overhead("", "0", 8, [10.0], [0.1], [phase(8.0)])
    assert found.ms[DECODING] == pytest.approx(1000 / 80)
    assert sum(found.ms.values()) == pytest.approx(2 * 1000 / 8.0)


@pytest.mark.parametrize(
    "bad",
    [phase(8.9), phase(9.5, errors=("status 503: b''",)), phase(9.5, off=1.5), phase(9.5, off=-1.5)],
    ids=["too slow", "a request failed", "more time than there was", "time is missing"],
)
def test_a_bad_phase_fails_the_verdict(bad: Phase) -> None:
    assert overhead("", "0", 8, [10.0], [0.1], [phase(9.5)]).shown
    assert not overhead("", "0", 8, [10.0], [0.1], [bad]).shown


def test_a_phase_without_responses_is_reported() -> None:
    silent = dataclasses.replace(phase(0.0, errors=("status 503: b''",)), latencies=())
    with pytest.raises(ValueError, match="503"):
        overhead("", "0", 8, [10.0], [0.1], [silent])


def test_latencies_are_those_of_all_phases() -> None:
    found = latency("", "0", 16, [phase(9.0), phase(11.0)])
    assert (found["answers"], found["images_per_s"]) == (6, 10.0)
    assert (found["p50_ms"], found["p99_ms"]) == pytest.approx((200.0, 300.0))


def test_tables_name_every_part() -> None:
    one = overhead("", "0.755", 8, [10.0], [0.1], [phase(9.0)])
    written = tables([one], [latency("", "0.755", 16, [phase(9.0)])])
    assert written.count("\n|") > len(PARTS)
    assert "0.90" in written


def test_growth_is_from_the_warm_server_to_the_end() -> None:
    assert growth([(1, 1000.0), (2, 1100.0), (3, 1050.0), (4, 1050.0)]) == pytest.approx(0.05)


@pytest.mark.e2e
def test_a_short_run_of_the_real_thing(root: Path, tmp_path: Path) -> None:
    """Seconds on a busy machine cannot show that the overhead is small, only that it is measured."""
    path = tmp_path / "overhead.json"
    command = [sys.executable, str(root / "loadtests/overhead.py"), "--json", str(path), "--ratios", "0.755"]
    command += ["--model", str(root / "model_store/deit_tiny_imagenette"), "--batches", "4", "--rounds", "1"]
    command += ["--seconds", "0.8", "--settle", "0.2", "--clients", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    report = orjson.loads(path.read_bytes())
    (found,) = report["overheads"]
    assert found["errors"] == []
    assert found["kept"] > 0
    assert done.returncode == (0 if found["shown"] else 1), done.stderr
    assert found["ms"][MODEL] > found["ms"][DECODING] > 0, "threads are found by their names"
    assert found["ms"][LOOPS] > 0
    assert [one["clients"] for one in report["latencies"]] == [2, 16]
    assert str(root) not in path.read_text()
