"""What the controller's decisions come to over time, on a simulated device under traces of every shape.

Oscillation is measured where nothing from outside asks for it: under arrivals at even intervals the level has
to come to rest. Under random arrivals it follows the bursts; there it is counted how often it turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from simulation import AUTO, MAX_RATIO, TARGET_S, Ask, Machine, Trace, limits, poisson, simulate

from prunepool.core.ratio_policy import DefaultRatio
from prunepool.core.types import RatioSpec

DENSE = Machine().capacity(0.0)
#: When the first reactions are over.
SETTLED_S = 5.0
#: One step of the grid, and a hair for its rounding.
STEP = MAX_RATIO / 9 + 1e-9
DIALS = (AUTO, RatioSpec(0.0, 0.0), RatioSpec(0.5, 0.5), RatioSpec(None, 0.3))


def asks(load: float | Callable[[float], float], seconds: float, ratio_spec: RatioSpec = AUTO) -> list[Ask]:
    """Poisson arrivals at so many times what the dense model can do."""
    at = load if callable(load) else lambda _: load
    return [Ask(time, ratio_spec) for time in poisson(lambda now: at(now) * DENSE, seconds)]


def evenly(load: float, seconds: float) -> list[Ask]:
    return [Ask(i / (load * DENSE)) for i in range(int(seconds * load * DENSE))]


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_below_the_dense_capacity_nothing_is_reduced(load: float) -> None:
    trace = simulate(asks(load, 30))
    assert trace.attainment == 1.0
    assert trace.dense >= 0.95


@pytest.mark.parametrize("load", [0.9, 1.1, 1.4, 1.6])
def test_a_steady_overload_of_the_dense_model_is_held_with_nothing_shed(load: float) -> None:
    trace = simulate(asks(load, 30))
    assert trace.attainment >= 0.99
    assert trace.refused == 0


def test_the_dense_model_alone_does_not_hold_it() -> None:
    """The trace is hard enough to need the controller."""
    assert simulate(asks(1.4, 30), policy=DefaultRatio(0.0)).attainment < 0.3


def test_no_more_is_reduced_than_a_fixed_ratio_that_holds_the_same_load() -> None:
    load = asks(1.2, 30)
    auto = simulate(load).between(SETTLED_S, math.inf)
    enough = next(
        ratio
        for ratio in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
        if simulate(load, policy=DefaultRatio(ratio)).attainment >= auto.attainment
    )
    assert auto.mean_ratio <= enough + 0.2


def test_a_step_is_followed_up_and_down() -> None:
    trace = simulate(asks(lambda now: 1.4 if 10 <= now < 25 else 0.5, 40))
    assert trace.attainment >= 0.99
    assert trace.refused == 0
    assert trace.between(0, 10).dense == 1.0
    assert trace.between(12, 25).dense == 0.0
    assert trace.between(30, 40).dense == 1.0


def test_a_ramp_is_followed() -> None:
    trace = simulate(asks(lambda now: 1.5 * now / 30, 30))
    assert trace.attainment >= 0.99
    parts = [trace.between(start, end).mean_ratio for start, end in ((0, 15), (20, 25), (25, 30))]
    assert parts[0] == 0.0
    assert parts[0] < parts[1] < parts[2]


def test_on_and_off_is_held_though_the_mean_would_not_need_it() -> None:
    trace = simulate(asks(lambda now: 1.5 if now % 4 < 2 else 0.2, 30))
    assert trace.attainment >= 0.99
    assert trace.refused == 0


def test_a_burst_is_answered_whole_and_forgotten() -> None:
    trace = simulate([*asks(0.5, 30), *(Ask(10 + i / 10_000) for i in range(40))])
    assert trace.refused == 0
    assert max(fate.latency for fate in trace.fates) <= 1.2 * TARGET_S
    assert trace.between(15, 30).dense == 1.0


def test_a_device_that_becomes_slow_is_noticed_and_believed_again() -> None:
    half_speed = Machine(slowness=lambda now: 2.0 if 10 <= now < 20 else 1.0)
    trace = simulate(asks(0.7, 30), half_speed)
    assert trace.attainment >= 0.99
    assert trace.between(0, 10).dense == 1.0
    assert trace.between(12, 20).mean_ratio > 0.5
    assert trace.between(26, 30).dense == 1.0


def test_who_fixed_a_ratio_gets_it_and_auto_makes_room() -> None:
    mixed = [Ask(ask.at, RatioSpec(0.0, 0.0) if i % 3 == 0 else AUTO) for i, ask in enumerate(asks(1.2, 30))]
    trace = simulate(mixed)
    assert trace.attainment >= 0.99
    assert all(fate.ratio == 0.0 for fate in trace.fates if fate.ask.ratio_spec.requested == 0.0)


def test_a_maximum_is_kept_though_others_must_go_further() -> None:
    low = RatioSpec(None, 0.3)
    mixed = [Ask(ask.at, low if i % 4 == 0 else AUTO) for i, ask in enumerate(asks(1.3, 30))]
    trace = simulate(mixed)
    assert trace.attainment >= 0.99
    assert max(fate.ratio for fate in trace.fates if fate.ask.ratio_spec == low) <= 0.3
    assert max(fate.ratio for fate in trace.fates) > 0.5


def test_what_cannot_be_held_is_refused_and_the_rest_comes_in_time() -> None:
    trace = simulate(asks(3.0, 20)).between(SETTLED_S, math.inf)
    answered = [fate for fate in trace.fates if fate.answered]
    assert trace.refused > 0
    assert sum(fate.latency <= TARGET_S for fate in answered) >= 0.95 * len(answered)


@pytest.mark.parametrize("load", [0.5, 0.9, 1.05, 1.2, 1.4, 1.6])
def test_under_even_arrivals_the_level_comes_to_rest(load: float) -> None:
    trace = simulate(evenly(load, 30)).between(2 * SETTLED_S, math.inf)
    assert trace.turns == 0
    assert trace.swing <= 2 * STEP


@pytest.mark.parametrize("load", [0.7, 1.1, 1.4])
def test_under_random_arrivals_it_turns_no_more_than_once_in_two_seconds(load: float) -> None:
    trace = simulate(asks(load, 40)).between(SETTLED_S, math.inf)
    assert trace.turns <= 35 / 2


@pytest.mark.parametrize("load", [0.5, 1.4])
def test_nine_of_ten_predictions_are_off_by_at_most_15_percent(load: float) -> None:
    assert simulate(asks(load, 20)).error(0.9) <= 0.15


@examples(0.3)
@given(
    rates=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=5),
    ratio_specs=st.lists(st.sampled_from(DIALS), min_size=1, max_size=4),
    within=st.none() | st.floats(0.05, 2.0),
)
def test_whatever_comes_everybody_gets_an_answer_or_a_reason(
    rates: list[float], ratio_specs: list[RatioSpec], within: float | None
) -> None:
    """The simulation itself asserts that nothing is left in the queue or on the device."""
    plain = asks(lambda now: rates[min(int(now), len(rates) - 1)] + 0.01, len(rates))
    trace = simulate(Ask(ask.at, ratio_specs[i % len(ratio_specs)], within) for i, ask in enumerate(plain))
    assert all(_ended(trace))
    for fate in trace.fates:
        if fate.answered:
            most = (
                fate.ask.ratio_spec.maximum
                if fate.ask.ratio_spec.requested is None
                else fate.ask.ratio_spec.requested
            )
            assert fate.ratio <= most


def _ended(trace: Trace) -> Iterable[bool]:
    return ((fate.refusal is not None) + fate.expired + fate.answered == 1 for fate in trace.fates)


def test_the_queue_is_bounded_by_what_it_takes_to_answer_it() -> None:
    """Fixed ratios are never refused for the target, only past the bound."""
    trace = simulate(asks(3.0, 10, RatioSpec(0.0, 0.0)), bounds=limits(max_queue_s=2.0))
    assert trace.refused > 0
    assert max(fate.latency for fate in trace.fates if fate.answered) <= 2.0 * 1.3
