"""Reading answers off logits, joining them, and keeping them as lists."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunepool.lab.model_outputs import ModelOutputs

DENSE = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
LOGITS = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
LABELS = np.array([0, 2])


def answers() -> ModelOutputs:
    return ModelOutputs.from_logits(LOGITS, DENSE, LABELS)


def test_the_best_class_and_its_probability() -> None:
    assert answers().predicted.tolist() == [1, 2]
    np.testing.assert_allclose(answers().confidence, LOGITS.softmax(-1).max(-1).values)


def test_the_place_of_the_right_class() -> None:
    place = answers().place
    assert place is not None
    assert place.tolist() == [1, 0]


def test_of_equal_classes_the_first_comes_first() -> None:
    logits = torch.zeros(3, 3)
    place = ModelOutputs.from_logits(logits, logits, np.array([0, 1, 2])).place
    assert place is not None
    assert place.tolist() == [0, 1, 2]


def test_the_divergence_from_the_dense_answer() -> None:
    kl = answers().kl
    p, q = DENSE.softmax(-1), LOGITS.softmax(-1)
    assert kl is not None
    np.testing.assert_allclose(kl, (p * (p / q).log()).sum(-1), atol=1e-6)


def test_a_divergence_of_nothing_is_not_negative() -> None:
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)) * 9
    kl = ModelOutputs.from_logits(logits, logits.clone(), None).kl
    assert kl is not None
    assert kl.min() >= 0


def test_the_margin_is_between_the_two_most_probable() -> None:
    best = LOGITS.softmax(-1).sort(-1, descending=True).values
    np.testing.assert_allclose(answers().margin, best[:, 0] - best[:, 1], rtol=1e-6)


def test_where_the_margin_is_small_the_dense_answer_stands() -> None:
    """The first image's margin is 0.42, the second one's 0.86."""
    dense = ModelOutputs.from_logits(DENSE, DENSE, LABELS)
    assert answers().escalated(dense, 0.4).predicted.tolist() == [1, 2]
    again = answers().escalated(dense, 0.5)
    assert again.predicted.tolist() == [0, 2]
    assert again.place is not None
    assert again.kl is not None
    assert (again.place.tolist(), again.kl[0]) == ([0, 0], 0)


def test_without_labels_there_is_no_place() -> None:
    assert ModelOutputs.from_logits(LOGITS, DENSE, None).place is None


def test_answers_to_two_sets_are_joined_in_order() -> None:
    joined = ModelOutputs.join([answers(), answers()])
    assert joined.predicted.tolist() == [1, 2, 1, 2]
    assert joined.place is not None
    assert joined.place.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("labels", [LABELS, None])
def test_lists_give_the_same_answers_back_to_the_bit(labels: np.ndarray | None) -> None:
    before = ModelOutputs.from_logits(LOGITS, DENSE, labels)
    again = ModelOutputs.from_json(before.to_json())
    for name in ("predicted", "confidence", "place", "kl", "margin"):
        a, b = getattr(before, name), getattr(again, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
