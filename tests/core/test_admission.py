from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.admission import Admission, Arrival
from prunepool.core.types import Limits, RatioSpec
from prunepool.errors import DeadlineExceeded, Overloaded

AUTO, FIXED = RatioSpec(None, 0.75), RatioSpec(0.5, 0.75)
LIMITS = Limits(max_queue_requests=8, max_queue_s=30.0, target_s=1.0)


def arrival(drain_s: float = 0.0, now: float = 0.0, **changes: Any) -> Arrival:
    plain = {"ratio_spec": AUTO, "deadline": None, "accepted": 1, "answered_in_s": drain_s, "alone_s": 0.01}
    return Arrival(now=now, drain_s=drain_s, **{**plain, **changes})


def accepted(admission: Admission, one: Arrival) -> bool:
    try:
        admission.check(one)
    except Overloaded:
        return False
    return True


def standing() -> Admission:
    """Admission control of a queue that has stood for longer than the target."""
    admission = Admission(LIMITS)
    for now in (0.0, 0.5, 1.0):
        admission.check(arrival(2.0, now))
    assert not accepted(admission, arrival(2.0, 1.01))
    return admission


def test_an_empty_server_lets_in() -> None:
    Admission(LIMITS).check(arrival())


def test_no_more_are_accepted_than_the_limit() -> None:
    with pytest.raises(Overloaded, match=r"8 images wait .* 8 is the limit"):
        Admission(LIMITS).check(arrival(accepted=8))


def test_who_finds_no_place_is_told_how_long_those_before_take() -> None:
    with pytest.raises(Overloaded) as refusal:
        Admission(LIMITS).check(arrival(5.0, accepted=8, alone_s=0.5))
    assert refusal.value.retry_after == 4.5


@pytest.mark.parametrize("ratio_spec", [AUTO, FIXED])
def test_no_more_work_is_accepted_than_the_bound(ratio_spec: RatioSpec) -> None:
    with pytest.raises(Overloaded, match=r"would take 31\.0 s, and 30 s is the limit") as refusal:
        Admission(LIMITS).check(arrival(31.0, ratio_spec=ratio_spec))
    assert refusal.value.retry_after == 1.0


def test_an_image_alone_is_accepted_however_long_it_takes() -> None:
    Admission(LIMITS).check(arrival(31.0, accepted=0, alone_s=31.0))


def test_a_burst_is_accepted_whole() -> None:
    admission = Admission(LIMITS)
    assert all(accepted(admission, arrival(0.1 * number)) for number in range(100))


def test_one_burst_after_the_other_is_accepted() -> None:
    admission = Admission(LIMITS)
    for start in (0.0, 5.0, 10.0):
        assert all(accepted(admission, arrival(0.1 * number, start)) for number in range(100))


def test_a_queue_that_stands_is_not_let_grow() -> None:
    with pytest.raises(Overloaded, match=r"would take 2000 ms even at the largest reductions.* 750 ms is"):
        standing().check(arrival(2.0, 1.02))


def test_who_is_refused_is_told_when_it_should_be_short() -> None:
    with pytest.raises(Overloaded) as refusal:
        standing().check(arrival(2.0, 1.02))
    assert refusal.value.retry_after == 1.5


def test_while_it_stands_only_so_many_are_accepted_as_can_be_answered_in_time() -> None:
    admission = standing()
    assert [accepted(admission, arrival(drain_s, 2.0)) for drain_s in (0.76, 0.74)] == [False, True]


def test_while_it_stands_there_is_no_room_for_a_burst() -> None:
    admission = standing()
    assert [accepted(admission, arrival(drain_s, 3.0)) for drain_s in (0.6, 0.7, 0.8)] == [True, True, False]


def test_after_it_was_short_the_next_burst_is_accepted() -> None:
    admission = standing()
    assert all(accepted(admission, arrival(0.4 + 0.1 * number, 4.0)) for number in range(50))


def test_a_fixed_ratio_has_no_target() -> None:
    standing().check(arrival(2.0, 1.02, ratio_spec=FIXED))


def test_a_target_that_the_device_cannot_hold_refuses_nobody_who_comes_alone() -> None:
    admission = Admission(LIMITS)
    assert all(accepted(admission, arrival(3.0, now, alone_s=3.0)) for now in range(10))


def test_without_a_target_only_the_bounds_count() -> None:
    admission = Admission(Limits())
    assert all(accepted(admission, arrival(1e6, now)) for now in range(10))


@pytest.mark.parametrize("ratio_spec", [AUTO, FIXED])
def test_what_would_come_too_late_is_refused_at_once(ratio_spec: RatioSpec) -> None:
    ratio = 0.75 if ratio_spec is AUTO else 0.5
    message = rf"would take 600 ms even at a reduction ratio of {ratio}, and the deadline leaves 500 ms"
    with pytest.raises(DeadlineExceeded, match=message):
        Admission(LIMITS).check(arrival(0.6, 10.0, deadline=10.5, ratio_spec=ratio_spec))


def test_a_deadline_that_has_passed_leaves_nothing() -> None:
    with pytest.raises(DeadlineExceeded, match=r"the deadline leaves 0 ms$"):
        Admission(LIMITS).check(arrival(0.6, 10.0, deadline=9.9999))


def test_an_answer_that_should_come_in_time_is_accepted() -> None:
    Admission(LIMITS).check(arrival(0.4, 10.0, deadline=10.5))


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 40.0)), max_size=60))
def test_a_request_to_a_short_queue_is_accepted_whatever_was_before(past: list[tuple[float, float]]) -> None:
    admission, now = Admission(LIMITS), 0.0
    for pause, drain_s in past:
        now += pause
        accepted(admission, arrival(drain_s, now))
    assert accepted(admission, arrival(0.5, now))
