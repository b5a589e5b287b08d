"""Responses, decoded by the real client."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.http import InferResult

from prunepool.api.oip.requests import InferRequest, OutputSpec
from prunepool.api.oip.responses import EncodedBody, classification, encode, summary_of
from prunepool.api.oip.views import View
from prunepool.serving.types import Inference, Reduction, Timing
from prunepool.testing import fake_model

VIEW = View("m", fake_model("m", classes=4), encoded=False, max_batch_size=8)
LOGITS = np.array([0.5, -1.0, 3.25, 0.1], np.float32)


def answer(logits: np.ndarray = LOGITS, labels: Any = VIEW.info.labels, **reduction: Any) -> Inference:
    done = {"requested": 0.5, "applied": 0.5, "reason": "requested", "gmacs": 0.75, "macs_saved": 0.25}
    reduced = Reduction(tokens=(197, 99), **{**done, **reduction})
    return Inference("m", logits, reduced, Timing(1, 1, 1, 3), 0, 1, labels=labels)


def asked(*outputs: OutputSpec, identifier: str | None = None) -> InferRequest:
    return InferRequest(identifier, [], {}, outputs)


def decoded(encoded: EncodedBody) -> Any:
    length = encoded.header_length
    return InferResult.from_response_body(encoded.body, header_length=None if length is None else str(length))


logits = npst.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.just(4)), elements=st.floats(-(2.0**99), 2.0**99, width=32)
)


@given(logits, st.booleans(), st.booleans())
def test_numbers_survive_in_any_form(values: np.ndarray, first: bool, second: bool) -> None:
    request = asked(OutputSpec("logits", first), OutputSpec("probabilities", second))
    result = decoded(encode(request, VIEW, [answer(row) for row in values]))
    np.testing.assert_array_equal(result.as_numpy("logits"), values)
    assert result.as_numpy("logits").dtype == np.float32
    np.testing.assert_allclose(result.as_numpy("probabilities").sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("binary", [False, True])
def test_classes_come_with_value_index_and_label(binary: bool) -> None:
    result = decoded(encode(asked(OutputSpec("logits", binary, 2)), VIEW, [answer(), answer(-LOGITS)]))
    expected = [["3.25:2:class 2", "0.5:0:class 0"], ["1.0:1:class 1", "-0.1:3:class 3"]]
    found = result.as_numpy("logits")
    assert [[text.decode() if binary else text for text in row] for row in found] == expected
    assert result.get_output("logits")["datatype"] == "BYTES"


def test_classes_of_probabilities_have_probabilities() -> None:
    result = decoded(encode(asked(OutputSpec("probabilities", False, 1)), VIEW, [answer()]))
    value, index, label = result.as_numpy("probabilities")[0, 0].split(":")
    exact = np.exp(LOGITS.astype(np.float64))
    assert float(value) == pytest.approx(exact[2] / exact.sum())
    assert (index, label) == ("2", "class 2")


def test_there_are_no_more_classes_than_the_model_has() -> None:
    result = decoded(encode(asked(OutputSpec("logits", True, 1000)), VIEW, [answer()]))
    assert result.as_numpy("logits").shape == (1, 4)


def test_equal_classes_come_by_index() -> None:
    assert classification(np.float32([1, 2, 1, 2]), "abcd", 4) == ["2.0:1:b", "2.0:3:d", "1.0:0:a", "1.0:2:c"]


@pytest.mark.parametrize("value", [1e-30, 1e30, 0.1, 1 / 3])
def test_a_value_is_exact_and_plain(value: float) -> None:
    (text,) = classification(np.float32([value]), "a", 1)
    number = text.split(":")[0]
    assert np.float32(number) == np.float32(value)
    assert "e" not in number


def test_labels_of_any_language_survive() -> None:
    labelled = answer(np.float32([2, 1]), ("Hündchen: jung", "猫"))
    result = decoded(encode(asked(OutputSpec("logits", True, 2)), VIEW, [labelled]))
    texts = [text.decode() for text in result.as_numpy("logits")[0]]
    assert texts == ["2.0:0:Hündchen: jung", "1.0:1:猫"]


def test_an_answer_in_json_is_json_alone() -> None:
    encoded = encode(asked(OutputSpec("logits", False)), VIEW, [answer()])
    assert encoded.header_length is None
    assert orjson.loads(encoded.body)["outputs"][0]["data"] == [0.5, -1.0, 3.25, 0.1]


def test_the_length_of_the_json_is_a_header_if_bytes_follow() -> None:
    encoded = encode(asked(OutputSpec("logits", True)), VIEW, [answer()])
    assert encoded.header_length is not None
    assert encoded.body[encoded.header_length :] == LOGITS.tobytes()


def test_the_id_is_echoed() -> None:
    document = decoded(
        encode(asked(OutputSpec("logits", True), identifier="7"), VIEW, [answer()])
    ).get_response()
    assert (document["id"], document["model_name"], document["model_version"]) == ("7", "m", "1")


def test_without_an_id_the_response_has_none() -> None:
    assert "id" not in decoded(encode(asked(OutputSpec("logits", True)), VIEW, [answer()])).get_response()


def test_the_token_reduction_is_a_parameter() -> None:
    document = decoded(encode(asked(OutputSpec("logits", True)), VIEW, [answer()])).get_response()
    assert document["parameters"] == {"reduction_ratio": 0.5, "gmacs": 0.75, "reason": "requested"}


def test_the_token_reduction_of_several_images_is_summed_up() -> None:
    answers = [
        answer(applied=0.25, gmacs=0.875, reason="auto:idle"),
        answer(applied=0.75, gmacs=0.625, reason="auto:load"),
        answer(applied=0.5, gmacs=0.75, reason="auto:idle"),
    ]
    assert summary_of(answers) == (0.75, 2.25, "auto:idle,auto:load")
