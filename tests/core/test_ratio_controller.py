"""The controller's decisions one by one; what they come to over time is in test_elastic.py."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from simulation import PIXELS

from prunepool.core.cost_model import CostModel, Effort, TimedBatch
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.prediction import Predictor
from prunepool.core.ratio_controller import Controller, ratio_grid
from prunepool.core.ratio_policy import LoadSnapshot, RatioChoice
from prunepool.core.types import Limits, RatioSpec, Request

MOST = 0.75
AUTO = RatioSpec(None, MOST)
DENSE = RatioSpec(0.0, 0.0)
TARGET_S = 10.0


class Costs:
    """1 GMAC dense, falling to 0 at ratio 1."""

    max_ratio = MOST

    def gmacs(self, ratio: float) -> float:
        return 1.0 - ratio


def usual_predictor() -> Predictor:
    """A second for each GMAC, in batches of four."""
    model = CostModel()
    model.fit([TimedBatch(Effort(1, 1, 0, 0), 1.0)])
    return Predictor(Costs(), Limits(max_batch_size=4), model)


def costly(step_s: float) -> Predictor:
    """A second for each GMAC, and some seconds for each image whose tokens are reduced, in batches of four."""
    model = CostModel()
    model.fit(
        [
            TimedBatch(Effort(1, images * gmacs, 0, images * reduced), images * (gmacs + step_s * reduced))
            for images in (1, 4)
            for gmacs, reduced in ((1.0, 0), (0.6, 1), (0.25, 1))
        ]
    )
    return Predictor(Costs(), Limits(max_batch_size=4), model)


def asks(
    count: int, ratio_spec: RatioSpec = AUTO, *, arrival: float = 0.0, deadline: float | None = None
) -> list[Request]:
    return [Request(PIXELS, ratio_spec, arrival, deadline) for _ in range(count)]


def load(
    waiting: Sequence[Request],
    *,
    now: float = 0.0,
    busy_s: float = 0.0,
    arriving: Sequence[RatioSpec] = (),
    predictor: Predictor | None = None,
) -> LoadSnapshot:
    ratio_specs = Counter(request.ratio_spec for request in waiting)
    return LoadSnapshot(now, waiting, ratio_specs, Counter(arriving), busy_s, predictor or usual_predictor())


@pytest.fixture
def controller() -> Controller:
    return Controller((0.0, 0.25, 0.5, 0.75), TARGET_S)


def choices(controller: Controller, state: LoadSnapshot) -> list[RatioChoice]:
    choose = controller.plan(state)
    return [choose(request) for request in state.waiting]


def chosen(controller: Controller, state: LoadSnapshot) -> RatioChoice:
    return choices(controller, state)[0]


def test_an_idle_server_does_not_reduce(controller: Controller) -> None:
    assert chosen(controller, load(asks(1))) == RatioChoice(0.0, "auto:idle")


def test_a_queue_that_drains_in_time_is_not_reduced(controller: Controller) -> None:
    assert chosen(controller, load(asks(6))) == RatioChoice(0.0, "auto:idle")


def test_a_queue_that_does_not_is_reduced_by_a_step(controller: Controller) -> None:
    assert chosen(controller, load(asks(7))) == RatioChoice(0.25, "auto:load")


def test_a_queue_that_is_far_too_long_is_reduced_at_once_as_far_as_needed(controller: Controller) -> None:
    assert chosen(controller, load(asks(14))) == RatioChoice(0.5, "auto:load")


def test_a_queue_that_no_reduction_drains_in_time_is_reduced_to_the_last(controller: Controller) -> None:
    assert chosen(controller, load(asks(500))) == RatioChoice(0.75, "auto:load")


def test_what_the_device_still_has_to_do_counts(controller: Controller) -> None:
    assert chosen(controller, load(asks(1), busy_s=5.5)).ratio == 0.25


def test_those_who_are_still_being_decoded_count(controller: Controller) -> None:
    assert chosen(controller, load(asks(1), arriving=[AUTO] * 6)).ratio == 0.25


def test_the_time_already_waited_counts(controller: Controller) -> None:
    assert chosen(controller, load(asks(4, arrival=-2.5))).ratio == 0.25


def test_a_fixed_request_runs_as_asked_whatever_the_load(controller: Controller) -> None:
    waiting = [*asks(1, RatioSpec(0.3, 0.3)), *asks(500)]
    assert chosen(controller, load(waiting)) == RatioChoice(0.3, "requested")


def test_a_requests_own_maximum_is_kept(controller: Controller) -> None:
    waiting = [*asks(1, RatioSpec(None, 0.1)), *asks(500)]
    assert chosen(controller, load(waiting)) == RatioChoice(0.1, "auto:load")


def test_a_maximum_of_nothing_is_no_reduction(controller: Controller) -> None:
    waiting = [*asks(1, RatioSpec(None, 0.0)), *asks(500)]
    assert chosen(controller, load(waiting)) == RatioChoice(0.0, "auto:idle")


def test_a_level_that_helps_nobody_is_not_taken(controller: Controller) -> None:
    """All that waits is fixed: reducing whoever comes next would cost accuracy and win no time."""
    controller.plan(load(asks(500, DENSE)))
    assert controller.forecast(AUTO, 0.0) == 0.0


def test_no_further_than_the_largest_maximum_helps(controller: Controller) -> None:
    controller.plan(load(asks(500, RatioSpec(None, 0.25))))
    assert controller.forecast(AUTO, 0.0) == 0.25


def test_before_anything_was_measured_nothing_is_reduced(controller: Controller) -> None:
    blank = LoadSnapshot(
        0.0, asks(500), Counter({AUTO: 500}), {}, 0.0, Predictor(Costs(), Limits(), CostModel())
    )
    assert controller.plan(blank)(blank.waiting[0]).ratio == 0.0  # type: ignore[index]


def test_it_stays_for_a_while_after_it_was_needed(controller: Controller) -> None:
    controller.plan(load(asks(14)))
    assert chosen(controller, load(asks(1, arrival=19.9), now=19.9)).ratio == 0.5


def test_then_it_comes_down_a_step_at_a_time(controller: Controller) -> None:
    controller.plan(load(asks(14)))
    seen = [chosen(controller, load(asks(1, arrival=now), now=now)).ratio for now in (20.0, 24.9, 25.0)]
    assert seen == [0.25, 0.25, 0.0]


def test_it_comes_down_while_nothing_happens_too(controller: Controller) -> None:
    controller.plan(load(asks(14)))
    assert [controller.forecast(AUTO, now) for now in (0.0, 20.0, 25.0, 1e9)] == [0.5, 0.25, 0.0, 0.0]


def test_looking_changes_nothing(controller: Controller) -> None:
    controller.plan(load(asks(14)))
    controller.forecast(AUTO, 1e9)
    assert controller.forecast(AUTO, 0.0) == 0.5


def test_it_does_not_come_down_to_where_the_device_could_not_keep_up(controller: Controller) -> None:
    """One image a second on a device that does one dense image a second."""
    controller.plan(load(asks(14)))
    now = 0.0
    for _ in range(100):
        now += 1.0
        state = load(asks(5 if round(now) % 5 == 0 else 0, arrival=now), now=now)
        controller.plan(state)
        controller.charge(list(state.waiting), state.predictor)
    assert controller.forecast(AUTO, now) == 0.25


@pytest.mark.parametrize("max_batch_s", [0.5, 1.0, math.inf])
def test_a_request_that_waits_for_a_later_batch_is_work_once(
    controller: Controller, max_batch_s: float
) -> None:
    """Four images every six seconds on a device that does six dense ones, however few go in a batch."""
    planner = Planner(Costs(), controller, Limits(max_batch_size=4, max_batch_s=max_batch_s))
    planner.fit_profile([TimedBatch(Effort(1, 1, 0, 0), 1.0)])
    for now in range(0, 241, 6):
        if now == 120:
            controller.plan(load(asks(14, arrival=now), now=now))
            assert controller.forecast(AUTO, now) == 0.5
        for request in asks(4, arrival=now):
            planner.add(request, now)
        while planner.next_batch(now, device=DeviceState((), None), arriving={}):
            pass
    assert controller.forecast(AUTO, now) == 0.0


def test_it_does_not_come_down_to_where_the_queue_would_be_long(controller: Controller) -> None:
    controller.plan(load(asks(14)))
    assert chosen(controller, load(asks(6, arrival=30.0), now=30.0)).ratio == 0.5


@pytest.mark.parametrize(
    ("left", "choice"),
    [
        (9.0, RatioChoice(0.0, "auto:idle")),
        (1.0, RatioChoice(0.25, "auto:deadline")),
        (0.6, RatioChoice(0.5, "auto:deadline")),
        (0.1, RatioChoice(0.75, "auto:deadline")),
    ],
)
def test_a_deadline_makes_a_request_go_further(
    controller: Controller, left: float, choice: RatioChoice
) -> None:
    assert chosen(controller, load(asks(1, deadline=left))) == choice


def test_a_deadline_goes_no_further_than_its_requests_maximum(controller: Controller) -> None:
    assert chosen(controller, load(asks(1, RatioSpec(None, 0.3), deadline=0.1))) == RatioChoice(
        0.3, "auto:deadline"
    )


def test_a_deadline_costs_no_other_request_anything(controller: Controller) -> None:
    waiting = [*asks(1, deadline=1.0), *asks(1)]
    assert choices(controller, load(waiting))[1] == RatioChoice(0.0, "auto:idle")


def test_a_deadline_knows_who_goes_with_it(controller: Controller) -> None:
    """Two of one second each before it, so that three seconds are too little for a third dense one."""
    waiting = [*asks(2), *asks(1, deadline=3.0)]
    assert choices(controller, load(waiting))[2] == RatioChoice(0.5, "auto:deadline")


def test_a_deadline_knows_what_the_device_has_to_do(controller: Controller) -> None:
    assert chosen(controller, load(asks(1, deadline=3.0), busy_s=2.0)).reason == "auto:deadline"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([AUTO, DENSE, RatioSpec(0.5, 0.5), RatioSpec(None, 0.25), RatioSpec(None, 0.6)]),
            st.floats(0.0, 30.0),
            st.none() | st.floats(0.0, 30.0),
        ),
        min_size=1,
        max_size=60,
    ),
    st.floats(0.0, 20.0),
)
def test_no_choice_goes_beyond_what_was_asked_for(
    waiting: list[tuple[RatioSpec, float, float | None]], busy_s: float
) -> None:
    controller = Controller(ratio_grid(MOST), TARGET_S)
    requests = [
        Request(PIXELS, ratio_spec, -waited, deadline)
        for ratio_spec, waited, deadline in sorted(waiting, key=lambda one: -one[1])
    ]
    for request, choice in zip(requests, choices(controller, load(requests, busy_s=busy_s)), strict=True):
        if request.ratio_spec.requested is None:
            assert 0 <= choice.ratio <= request.ratio_spec.maximum
            assert choice.reason in {"auto:idle", "auto:load", "auto:deadline"}
            assert (choice.reason == "auto:idle") == (choice.ratio == 0)
        else:
            assert choice == RatioChoice(request.ratio_spec.requested, "requested")


@example(1, 1, 8.0)
@given(st.integers(1, 200), st.integers(0, 200), st.floats(0.0, 20.0))
def test_more_load_never_means_less_reduction(few: int, more: int, busy_s: float) -> None:
    light, heavy = (
        chosen(Controller(ratio_grid(MOST), TARGET_S), load(asks(count), busy_s=busy_s)).ratio
        for count in (few, few + more)
    )
    assert heavy >= light


@given(st.floats(0.01, 0.95), st.lists(st.floats(0.0, 1.0), max_size=40))
def test_the_grid_ascends_from_0_to_the_limit_in_a_bounded_number_of_points(
    limit: float, measured: list[float]
) -> None:
    levels = ratio_grid(limit, measured)
    assert (levels[0], levels[-1]) == (0.0, limit)
    assert 2 <= len(levels) <= 16
    assert all(low < high for low, high in pairwise(levels))


def test_the_grid_of_a_model_that_was_measured_goes_through_what_was_measured() -> None:
    assert ratio_grid(0.8, [0.5, 0.1, 0.3, 0.0, 0.85]) == (0.0, 0.1, 0.3, 0.5, 0.8)


def test_the_grid_of_a_model_that_was_not_measured_is_even() -> None:
    levels = ratio_grid(0.9)
    assert len(levels) == 10
    assert [high - low for low, high in pairwise(levels)] == pytest.approx([0.1] * 9)


@pytest.mark.parametrize("waiting", [0, 1, 7, 14, 500])
def test_where_reduction_costs_more_than_it_saves_nothing_is_reduced(
    waiting: int, controller: Controller
) -> None:
    """At 0.75 an image saves 0.75 s of computing and spends 0.8 s on choosing tokens."""
    state = load(asks(waiting), predictor=costly(0.8))
    assert {choice.ratio for choice in choices(controller, state)} <= {0.0}
    assert controller.forecast(AUTO, 0.0) == 0.0


def test_a_ratio_that_is_slower_than_a_smaller_one_is_passed_over(controller: Controller) -> None:
    """At 0.25 and 0.5 an image takes 1.35 and 1.1 s, at 0.75 it takes 0.85 s, and dense 1 s."""
    assert chosen(controller, load(asks(7), predictor=costly(0.6))) == RatioChoice(0.75, "auto:load")


@pytest.mark.parametrize(("maximum", "ratio"), [(0.3, 0.0), (0.5, 0.0), (0.7, 0.7), (0.75, 0.75)])
def test_a_maximum_that_is_slower_than_no_reduction_is_not_applied(
    maximum: float, ratio: float, controller: Controller
) -> None:
    waiting = [*asks(1, RatioSpec(None, maximum)), *asks(500)]
    assert chosen(controller, load(waiting, predictor=costly(0.6))).ratio == ratio


@pytest.mark.parametrize("maximum", [0.3, 0.75])
def test_nor_for_a_deadline(maximum: float, controller: Controller) -> None:
    late = asks(1, RatioSpec(None, maximum), deadline=0.1)
    assert chosen(controller, load(late, predictor=costly(0.8))) == RatioChoice(0.0, "auto:idle")


@given(
    step_s=st.floats(0, 2),
    waiting=st.integers(0, 60),
    maximum=st.floats(0, MOST),
    deadline=st.none() | st.floats(0.01, 50),
    grid=st.lists(st.floats(0.01, MOST), unique=True, max_size=8).map(sorted),
)
def test_no_ratio_is_predicted_to_be_slower_than_a_smaller_one(
    step_s: float, waiting: int, maximum: float, deadline: float | None, grid: list[float]
) -> None:
    predictor = costly(step_s)
    controller = Controller((0.0, *grid), TARGET_S)
    state = load([*asks(1, RatioSpec(None, maximum), deadline=deadline), *asks(waiting)], predictor=predictor)
    for choice in choices(controller, state):
        smaller = [ratio for ratio in (0.0, *grid) if ratio < choice.ratio]
        assert all(predictor.image_s(choice.ratio) < predictor.image_s(ratio) for ratio in smaller)
