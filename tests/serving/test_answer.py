from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from prunepool.errors import PrunepoolError
from prunepool.serving.answer import best

LABELS = [f"class {i}" for i in range(100)]


def logits(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_likeliest_come_first() -> None:
    assert [p.index for p in best(logits(1, 3, 2), LABELS, 2)] == [1, 2]


def test_labels_are_those_of_the_classes() -> None:
    assert [p.label for p in best(logits(1, 3, 2), LABELS, 2)] == ["class 1", "class 2"]


def test_scores_are_the_softmax_over_all_classes() -> None:
    (only,) = best(logits(0, np.log(3)), LABELS, 1)
    assert only.score == pytest.approx(0.75)


def test_equals_come_by_index() -> None:
    assert [p.index for p in best(logits(5, 7, 5, 7, 5), LABELS, 4)] == [1, 3, 0, 2]


@pytest.mark.parametrize("offset", [1e4, -1e4, 1e30])
def test_large_logits_neither_overflow_nor_vanish(offset: float) -> None:
    assert best(logits(offset, offset), LABELS, 2)[0].score == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_of_what_is_not_finite_no_answer_is_made(value: float) -> None:
    with pytest.raises(PrunepoolError, match="not finite"):
        best(logits(0.0, value), LABELS, 1)


finite = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0])


@given(npst.arrays(np.float32, st.integers(1, 100), elements=finite), st.data())
def test_as_a_full_sort_would_have_it(values: np.ndarray, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    assert [p.index for p in best(values, LABELS, count)] == expected


@given(npst.arrays(np.float32, st.integers(1, 100), elements=finite))
def test_all_scores_sum_to_one(values: np.ndarray) -> None:
    assert sum(p.score for p in best(values, LABELS, len(values))) == pytest.approx(1, abs=1e-5)
