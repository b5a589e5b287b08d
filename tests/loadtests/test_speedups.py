"""Speedups from alternating phases, on made-up numbers."""

from __future__ import annotations

import itertools
import math

import pytest
from shapes import SHAPES, Phase, phase_at, phases, users_at
from speedups import Answer, interval, judge, quiet_rounds, speedups


def steady(rate: float, phase: Phase) -> list[Answer]:
    """Answers at a steady rate throughout a phase."""
    count = round(rate * (phase.end - phase.start))
    times = [phase.start + (i + 0.5) / rate for i in range(count)]
    return [Answer(phase.number, at - 0.1, at, None) for at in times]


def run(dense: list[float], reduced: list[float]) -> tuple[list[Answer], list[Phase]]:
    schedule = phases(["0", "0.755"], len(dense), 10.0, 2.0)
    answers = []
    for phase in schedule[1:]:
        answers += steady((dense if phase.ratio == "0" else reduced)[phase.round], phase)
    return answers, schedule


def test_a_machine_that_slows_down_does_not_change_the_speedup() -> None:
    answers, schedule = run([40.0, 20.0, 10.0], [60.0, 30.0, 15.0])
    dense, reduced = speedups(answers, schedule, settle_s=2.0)
    assert dense.mean == 1.0
    assert reduced.mean == pytest.approx(1.5, rel=0.03)
    assert reduced.high - reduced.low < 0.1


def test_a_failed_response_is_not_counted() -> None:
    answers, schedule = run([10.0, 10.0], [20.0, 20.0])
    spoilt = [
        Answer(a.phase, a.sent, a.answered, "status 500") if i % 2 else a for i, a in enumerate(answers)
    ]
    rates = speedups(spoilt, schedule, settle_s=0.0)[0].images_per_s
    assert rates == pytest.approx((5.0, 5.0), rel=0.05)


def test_a_phase_without_responses_is_reported() -> None:
    answers, schedule = run([10.0, 10.0], [20.0, 20.0])
    with pytest.raises(ValueError, match="no answer"):
        speedups([one for one in answers if one.phase != schedule[-1].number], schedule, settle_s=1.0)


@pytest.mark.parametrize(
    ("reduced", "shown"),
    [
        ([15.0, 15.2, 15.1], True),  # all of the gain
        ([12.0, 12.1, 11.9], False),  # too little of it
        ([10.0, 10.1, 9.9], False),  # none
        ([9.0, 30.0, 9.0], False),  # large, but it could be chance
    ],
)
def test_a_claim_must_be_met_with_confidence(reduced: list[float], shown: bool) -> None:
    answers, schedule = run([10.0] * 3, reduced)
    (verdict,) = judge(speedups(answers, schedule, settle_s=1.0), {"0.755": 1.5}, keep=0.7)
    assert verdict.needed == pytest.approx(1.35)
    assert verdict.shown is shown


def test_the_interval_of_known_numbers() -> None:
    """Mean 2, deviation 1, three values: 2 ± 4.303 / √3."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert interval([1.0]) == (-math.inf, math.inf)


def test_a_disturbed_round_is_left_out() -> None:
    schedule = phases(["0", "0.755"], 3, 10.0, 2.0)
    loud = next(phase for phase in schedule if phase.round == 1)
    kept = quiet_rounds(schedule, lambda start, end: 0.5 if start <= loud.start < end else 0.01, most=0.1)
    assert kept == {0, 2}


def test_phases_alternate_in_both_orders() -> None:
    schedule = phases(["0", "a", "b"], 2, 5.0, 3.0)
    assert [phase.ratio for phase in schedule] == ["0", "0", "a", "b", "b", "a", "0"]
    assert [phase.round for phase in schedule] == [-1, 0, 0, 0, 1, 1, 1]
    assert all(one.end == other.start for one, other in itertools.pairwise(schedule))
    assert phase_at(schedule, 2.9) == schedule[0]
    assert phase_at(schedule, 3.0) == schedule[1]
    assert phase_at(schedule, schedule[-1].end) is None


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_span_the_run_and_end(name: str) -> None:
    seen = {users_at(SHAPES[name], 40, 100.0, second + 0.5) for second in range(100)}
    assert None not in seen
    assert max(users for users in seen if users is not None) == (20 if name == "soak" else 40)
    assert users_at(SHAPES[name], 40, 100.0, 100.1) is None
