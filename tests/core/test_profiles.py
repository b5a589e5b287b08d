from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.cost_model import TimedBatch, effort
from prunepool.core.profiles import from_json, to_json


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.lists(
            st.tuples(
                st.dictionaries(st.sampled_from([0.0, 0.3, 0.87]), st.integers(1, 32), min_size=1),
                st.booleans(),
                st.floats(1e-6, 100.0),
            ).map(
                lambda run: TimedBatch(
                    effort(Counter(run[0]), lambda ratio: 1 - ratio, idle_before=run[1]), run[2]
                )
            )
        ).map(tuple),
        max_size=3,
    )
)
def test_what_was_timed_can_be_handed_on(profiles: dict[str, tuple[TimedBatch, ...]]) -> None:
    entries = [
        SimpleNamespace(model=SimpleNamespace(name=name), scheduler=SimpleNamespace(warm_up_profile=timed))
        for name, timed in profiles.items()
    ]
    assert from_json(to_json(cast("Any", entries))) == profiles


def test_a_first_process_has_nothing_from_another() -> None:
    assert from_json("{}") == {}
