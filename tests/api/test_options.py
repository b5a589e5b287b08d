"""Options are read strictly, from every source."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.api.options import HEADER, RawOption, read_options
from prunepool.errors import InvalidParameter
from prunepool.serving.options import InferenceOptions


def query(**values: object) -> list[RawOption]:
    return [RawOption("query", name, value) for name, value in values.items()]


def test_without_options_nothing_is_set() -> None:
    assert read_options([]) == InferenceOptions()


def test_text_is_read_as_what_it_means() -> None:
    given = query(
        model="m",
        reduction_ratio="0.5",
        max_reduction_ratio="7e-1",
        top_k="3",
        deadline_ms="80",
        explain="true",
    )
    assert read_options(given) == InferenceOptions(
        model="m", reduction_ratio=0.5, max_reduction_ratio=0.7, top_k=3, deadline_ms=80.0, explain=True
    )


def test_json_values_are_read_as_they_are() -> None:
    given = [RawOption("JSON body", "reduction_ratio", 0), RawOption("JSON body", "explain", False)]
    assert read_options(given) == InferenceOptions(reduction_ratio=0.0, explain=False)


@pytest.mark.parametrize("value", [3, 3.0, "3", "3.0", "+3", "3e0"])
def test_an_integer_may_be_written_as_any_number(value: object) -> None:
    top_k = read_options(query(top_k=value)).top_k
    assert (top_k, type(top_k)) == (3, int)


@pytest.mark.parametrize("name", ["model", "reduction_ratio", "top_k", "deadline_ms", "explain"])
@pytest.mark.parametrize("value", ["", "  "])
def test_a_blank_field_is_not_given(name: str, value: str) -> None:
    given = [
        RawOption("form", name, value),
        RawOption("query", name, value),
        RawOption("header", HEADER, value),
    ]
    assert read_options(given) == InferenceOptions()


def test_a_blank_field_does_not_contradict_a_value() -> None:
    assert read_options([RawOption("form", "top_k", ""), RawOption("query", "top_k", "3")]).top_k == 3


def test_null_is_not_given_and_an_empty_json_text_is_no_value() -> None:
    assert read_options([RawOption("JSON body", "top_k", None)]) == InferenceOptions()
    with pytest.raises(InvalidParameter, match="model must be a name of 1 to 200 characters; got ''"):
        read_options([RawOption("JSON body", "model", "")])


@pytest.mark.parametrize("value", ["", None])
def test_an_unknown_option_is_refused_even_if_it_is_not_given(value: str | None) -> None:
    with pytest.raises(InvalidParameter, match="top_n must be left out"):
        read_options(query(top_n=value))


def test_auto_is_a_ratio() -> None:
    assert read_options(query(reduction_ratio="auto")).reduction_ratio == "auto"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reduction_ratio", "nan"),
        ("reduction_ratio", "inf"),
        ("reduction_ratio", "0,5"),
        ("reduction_ratio", "0_5"),
        ("reduction_ratio", " 0.5"),
        ("reduction_ratio", "٠.٥"),
        ("reduction_ratio", "Auto"),
        ("reduction_ratio", True),
        ("reduction_ratio", [0.5]),
        ("max_reduction_ratio", "auto"),
        ("top_k", "3.5"),
        ("top_k", 3.5),
        ("top_k", 1e300),
        ("top_k", float("nan")),
        ("top_k", 10**400),
        ("reduction_ratio", 10**400),
        ("top_k", True),
        ("top_k", "9" * 30),
        ("deadline_ms", "soon"),
        ("explain", "maybe"),
        ("explain", 1),
        ("model", 3),
        ("model", "m" * 201),
    ],
)
def test_an_unreadable_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as error:
        read_options(query(**{name: value}))
    assert error.value.parameter == name
    assert error.value.extra["limit"]


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidParameter, match=r"top_n must be left out.*top_k.*; got '3'") as error:
        read_options(query(top_n="3"))
    assert error.value.parameter == "top_n"


def test_an_unknown_name_is_shortened_in_the_error() -> None:
    with pytest.raises(InvalidParameter) as error:
        read_options(query(**{"x" * 10_000: "y" * 10_000}))
    assert len(error.value.detail) < 500


def test_the_header_is_a_ratio() -> None:
    assert read_options([RawOption("header", HEADER, "0.25")]) == InferenceOptions(reduction_ratio=0.25)


def test_a_wrong_header_is_named_as_the_header() -> None:
    with pytest.raises(InvalidParameter) as error:
        read_options([RawOption("header", HEADER, "much")])
    assert error.value.parameter == HEADER


def test_the_same_value_twice_is_accepted() -> None:
    given = [RawOption("query", "top_k", "3"), RawOption("JSON body", "top_k", 3)]
    assert read_options(given).top_k == 3


@pytest.mark.parametrize(
    "given",
    [
        [RawOption("query", "top_k", "3"), RawOption("JSON body", "top_k", 4)],
        [RawOption("query", "top_k", "3"), RawOption("query", "top_k", "4")],
        [RawOption("header", HEADER, "0.5"), RawOption("query", "reduction_ratio", "auto")],
    ],
    ids=["query and body", "twice in the query", "header and query"],
)
def test_two_different_values_are_refused(given: list[RawOption]) -> None:
    with pytest.raises(InvalidParameter, match=r"given once, or the same each time"):
        read_options(given)


@given(
    st.sampled_from(
        [
            "reduction_ratio",
            "max_reduction_ratio",
            "max_accuracy_drop",
            "top_k",
            "deadline_ms",
            "model",
            "explain",
        ]
    ),
    st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.integers())),
)
def test_any_value_is_read_or_refused(name: str, value: object) -> None:
    blamed = name
    try:
        read_options(query(**{name: value}))
    except InvalidParameter as error:
        blamed = error.parameter
    assert blamed == name
