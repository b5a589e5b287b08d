from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.logits import softmax
from prunepool.errors import InvalidParameter
from prunepool.serving.options import InferenceOptions, ResolvedOptions, resolve
from prunepool.testing import fake_model

INFO = fake_model()  # 10 classes, ratios up to 171/196
LIMIT = INFO.max_reduction_ratio


def resolved(default_ratio: Any = "auto", max_ratio: float | None = None, **options: Any) -> ResolvedOptions:
    return resolve(InferenceOptions(**options), INFO, default_ratio=default_ratio, max_ratio=max_ratio)


@pytest.mark.parametrize("ratio", [0, 0.0, 0.755, LIMIT])
def test_a_ratio_that_the_model_can_do_is_taken(ratio: float) -> None:
    assert resolved(reduction_ratio=ratio).ratio_spec.requested == ratio


@pytest.mark.parametrize("ratio", [-0.01, 0.9, 1.0, math.nan, math.inf, -math.inf, True, "0.5", "fast"])
@pytest.mark.parametrize("parameter", ["reduction_ratio", "max_reduction_ratio"])
def test_a_ratio_that_the_model_cannot_do_is_refused_by_name(parameter: str, ratio: Any) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        resolved(**{parameter: ratio})
    assert refusal.value.parameter == parameter


def test_the_refusal_names_the_value_and_the_limit() -> None:
    with pytest.raises(InvalidParameter, match=r"auto or a number between 0 and 0\.8724; got 0\.9"):
        resolved(reduction_ratio=0.9)


def test_the_limit_that_a_refusal_names_is_itself_allowed() -> None:
    assert resolved(reduction_ratio=0.8724).requested == 0.8724


def test_a_ratio_beyond_the_limit_by_rounding_is_the_limit() -> None:
    assert resolved(reduction_ratio=LIMIT + 1e-12).requested == LIMIT


def test_auto_leaves_the_ratio_open() -> None:
    wanted = resolved(reduction_ratio="auto")
    assert (wanted.requested, wanted.ratio_spec.requested) == ("auto", None)


def test_auto_is_bounded_by_the_model() -> None:
    assert resolved(reduction_ratio="auto").ratio_spec.maximum == LIMIT


@pytest.mark.parametrize(
    ("server", "caller", "maximum"),
    [(0.5, None, 0.5), (None, 0.5, 0.5), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.99, None, LIMIT)],
)
def test_auto_is_bounded_by_server_and_caller(server: Any, caller: Any, maximum: float) -> None:
    assert resolved(max_ratio=server, max_reduction_ratio=caller).ratio_spec.maximum == maximum


@pytest.mark.parametrize("default", ["auto", 0.25])
def test_who_names_no_ratio_gets_the_servers(default: Any) -> None:
    assert resolved(default_ratio=default).requested == default


def test_who_names_only_a_bound_never_gets_more() -> None:
    assert resolved(default_ratio=0.75, max_reduction_ratio=0.5).requested == 0.5


def test_a_fixed_ratio_is_not_bound_by_the_servers_bound_on_auto() -> None:
    assert resolved(max_ratio=0.25, reduction_ratio=0.5).requested == 0.5


@pytest.mark.parametrize("ratio", [0.51, LIMIT])
def test_a_fixed_ratio_above_the_caller_s_own_bound_is_refused(ratio: float) -> None:
    said = r"reduction_ratio must be auto or at most max_reduction_ratio \(0\.5\), which the request gives too; got"
    with pytest.raises(InvalidParameter, match=said):
        resolved(reduction_ratio=ratio, max_reduction_ratio=0.5)
    assert resolved(reduction_ratio=0.5, max_reduction_ratio=0.5).requested == 0.5


@pytest.mark.parametrize("parameter", ["reduction_ratio", "max_reduction_ratio"])
def test_minus_zero_is_zero(parameter: str) -> None:
    wanted = resolved(**{parameter: -0.0})
    assert [str(wanted.requested), str(wanted.ratio_spec.maximum)].count("-0.0") == 0


@pytest.mark.parametrize(("asked", "given"), [(None, 5), (1, 1), (10, 10)])
def test_top_k(asked: int | None, given: int) -> None:
    assert resolved(top_k=asked).top_k == given


def test_top_k_is_all_classes_where_there_are_fewer_than_five() -> None:
    assert resolve(InferenceOptions(), fake_model(classes=3)).top_k == 3


@pytest.mark.parametrize("top_k", [0, -1, 11, True, 2.0])
def test_a_top_k_out_of_range_is_refused(top_k: Any) -> None:
    with pytest.raises(InvalidParameter, match="top_k must be an integer between 1 and 10"):
        resolved(top_k=top_k)


def test_a_deadline_becomes_seconds() -> None:
    assert resolved(deadline_ms=250).deadline_s == 0.25


@pytest.mark.parametrize("deadline_ms", [0, -1.0, math.nan, math.inf, True, "soon"])
def test_a_deadline_that_is_no_time_to_come_is_refused(deadline_ms: Any) -> None:
    with pytest.raises(InvalidParameter, match="deadline_ms must be a finite number above 0"):
        resolved(deadline_ms=deadline_ms)


@given(
    ratio=st.floats(), bound=st.none() | st.floats(), top_k=st.integers(), deadline=st.none() | st.floats()
)
def test_whatever_is_not_refused_can_be_done(
    ratio: float, bound: float | None, top_k: int, deadline: float | None
) -> None:
    try:
        wanted = resolved(reduction_ratio=ratio, max_reduction_ratio=bound, top_k=top_k, deadline_ms=deadline)
    except InvalidParameter:
        return
    assert wanted.ratio_spec.requested is not None
    assert 0 <= wanted.ratio_spec.requested <= LIMIT
    assert 0 <= wanted.ratio_spec.maximum <= LIMIT
    assert 1 <= wanted.top_k <= 10
    assert wanted.deadline_s is None or 0 < wanted.deadline_s < math.inf


def test_softmax_sums_to_one() -> None:
    probabilities = softmax(np.array([0, np.log(3)], np.float32))
    assert probabilities.dtype == np.float32
    assert probabilities.tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("offset", [1e4, -1e4, 1e30])
def test_softmax_of_large_logits_neither_overflows_nor_vanishes(offset: float) -> None:
    assert softmax(np.full(2, offset, np.float32)).tolist() == [0.5, 0.5]


PROFILE = [
    {"ratio": 0.0, "gmacs": 1.0, "drop": 0.0},
    {"ratio": 0.3, "gmacs": 0.9, "drop": 0.2},
    {"ratio": 0.5, "gmacs": 0.8, "drop": 0.6},
    {"ratio": 0.7, "gmacs": 0.7, "drop": 1.5},
    {"ratio": 0.8, "gmacs": 0.6},
]


def within(drop: Any, profile: Any = PROFILE, **options: Any) -> ResolvedOptions:
    info = fake_model(profile=profile)
    return resolve(InferenceOptions(max_accuracy_drop=drop, **options), info, default_ratio=0.1)


@pytest.mark.parametrize(("drop", "ratio"), [(0, 0.0), (0.1, 0.0), (0.2, 0.3), (1, 0.5), (50.0, 0.7)])
def test_an_accuracy_takes_the_fastest_measured_plan_that_keeps_it(drop: float, ratio: float) -> None:
    wanted = within(drop)
    assert (wanted.requested, wanted.ratio_spec.requested, wanted.reason) == (ratio, ratio, "accuracy")


def timed(speedups: dict[float, float], device: str = "cpu") -> list[dict[str, Any]]:
    """The profile with measured speeds."""
    return [
        point | {"speed": {"speedup": speedups[point["ratio"]], "device": device}}
        if point["ratio"] in speedups
        else point
        for point in PROFILE
    ]


def test_where_speeds_were_measured_they_decide_what_is_fastest() -> None:
    assert within(50, profile=timed({0.3: 1.1, 0.5: 1.4, 0.7: 1.3})).requested == 0.5


def test_a_plan_that_is_slower_than_the_unreduced_model_is_not_the_fastest() -> None:
    assert within(0.2, profile=timed({0.3: 0.95, 0.5: 1.4, 0.7: 1.3})).requested == 0.0


@pytest.mark.parametrize(
    "profile",
    [timed({0.3: 1.1, 0.5: 1.4}), timed({0.3: 1.1, 0.5: 1.4, 0.7: 1.3}, device="cuda")],
    ids=["one-is-missing", "of-another-device"],
)
def test_speeds_that_do_not_cover_it_leave_the_choice_to_the_work(profile: Any) -> None:
    assert within(50, profile=profile).requested == 0.7


def test_with_auto_an_accuracy_is_a_bound() -> None:
    wanted = within(0.6, reduction_ratio="auto")
    assert (wanted.requested, wanted.ratio_spec.requested, wanted.ratio_spec.maximum) == ("auto", None, 0.5)
    assert wanted.reason == "requested"


def test_an_accuracy_goes_no_further_than_the_callers_bound() -> None:
    assert within(50, max_reduction_ratio=0.4).requested == 0.3


def test_where_no_measured_plan_keeps_it_nothing_is_reduced() -> None:
    assert within(0.1, profile=PROFILE[2:]).requested == 0.0


@pytest.mark.parametrize("drop", [-0.1, math.nan, math.inf, True, "1"])
def test_an_accuracy_that_is_none_is_refused_by_name(drop: Any) -> None:
    with pytest.raises(InvalidParameter, match="max_accuracy_drop must be a finite number of points, 0 or"):
        within(drop)


def test_an_accuracy_and_a_ratio_contradict_each_other() -> None:
    with pytest.raises(InvalidParameter, match=r"max_accuracy_drop must be left out.*reduction_ratio .*0\.5"):
        within(1.0, reduction_ratio=0.5)


@pytest.mark.parametrize("profile", [None, [], [{"ratio": 0.5, "gmacs": 0.8, "top1": 0.9}]])
def test_without_a_measured_profile_an_accuracy_cannot_be_asked_for(profile: Any) -> None:
    with pytest.raises(InvalidParameter, match="max_accuracy_drop must be left out for fake: its"):
        within(1.0, profile=profile)
