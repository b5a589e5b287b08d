"""The engine that is predicted to be free first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from prunepool.transport.zmq.balancer import Candidate, least_loaded

seconds = st.floats(0, 100)


def test_none_of_none() -> None:
    assert least_loaded([], 0) is None


def test_equal_engines_take_turns() -> None:
    choices = [Candidate(number, 0.0) for number in range(3)]
    chosen = Counter(choice.number for turn in range(9) if (choice := least_loaded(choices, turn)))
    assert chosen == {0: 3, 1: 3, 2: 3}


@given(
    st.lists(seconds, min_size=1, max_size=6),
    st.integers(0, 10**6),
)
def test_no_other_is_free_before_it(engines: list[float], turn: int) -> None:
    choices = [Candidate(number, engine) for number, engine in enumerate(engines)]
    chosen = least_loaded(choices, turn)
    assert chosen is not None
    assert all(chosen.predicted_s <= other.predicted_s + 1e-9 for other in choices)
